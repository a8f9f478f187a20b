"""Decoders of `dllm_protocol`: every record, CometBFT's messages and their JSON, proofs, addresses, amounts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from dllm_protocol import ics23, merkle
from dllm_protocol.address import decode_address, encode_address
from dllm_protocol.block import Block, LightBlock, PartSet, SignedHeader, block_id_of
from dllm_protocol.block_json import (
    block_from_json,
    block_id_from_json,
    block_id_to_json,
    block_to_json,
    commit_from_json,
    commit_to_json,
    evidence_from_json,
    evidence_to_json,
    header_from_json,
    header_to_json,
    merkle_proof_from_json,
    merkle_proof_to_json,
    signed_header_from_json,
    signed_header_to_json,
    tx_result_from_json,
    tx_result_to_json,
    validator_from_json,
    validator_to_json,
    validators_page_from_json,
    validators_to_json,
    vote_from_json,
    vote_to_json,
)
from dllm_protocol.comet_wire import read_fields as read_comet_fields
from dllm_protocol.commit import BlockID, Commit, CommitSig, PartSetHeader
from dllm_protocol.evidence import DuplicateVoteEvidence, Evidence, Vote, decode_evidence, encode_evidence
from dllm_protocol.header import Header
from dllm_protocol.ics23_codec import decode_commitment_proof, encode_commitment_proof
from dllm_protocol.light_attack import (
    ConflictingBlock,
    LightClientAttackEvidence,
    evidence_of_attack,
)
from dllm_protocol.messages import unpack_floats, unpack_ids
from dllm_protocol.protobuf import read_fields, read_uvarint
from dllm_protocol.sealing import SealingKey
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.units import format_dllm, parse_dllm
from dllm_protocol.validator_set import Validator, ValidatorSet
from dllm_protocol.verification.options import VerificationOptions
from dllm_protocol.verification.verifier import TrustedState, verify
from tests.dllm_protocol.reference_tree import reference_absence, reference_existence
from tests.fuzz.decoder import Decoder, OtherSpelling, canonical, from_json, name_of, parsed, stable, text
from tests.light_node.signed_chain import CHAIN_ID, SignedChain
from tests.vectors.record_consensus import made_chain, made_evidence

VECTORS = Path(__file__).parents[1] / "vectors"
_TREE = {f"key {number}".encode(): f"value {number}".encode() for number in range(20)}
_LEAVES = (b"a", b"b", b"c")
_DAY_NS = 86_400_000_000_000


@cache
def chain() -> SignedChain:
    """The chain that the golden consensus objects were recorded from."""
    return made_chain()


def as_json(value: object) -> bytes:
    """One example document."""
    return json.dumps(value).encode()


def _use_header(header: Header) -> None:
    header.hash()
    header.validate_basic()


def _use_commit(commit: Commit) -> None:
    commit.hash()
    commit.validate_basic()
    for index in range(min(len(commit.signatures), 2)):
        commit.sign_bytes(CHAIN_ID, index)


def _use_block(block: Block) -> None:
    block_id_of(block)
    block.validate_basic()


def _use_evidence(evidence: Evidence) -> None:
    evidence.hash()
    evidence.validate_basic()


def _judge(signed: SignedHeader) -> None:
    """As a light client does with a header that a stranger sent: against the trusted height 1."""
    signed.validate_basic(CHAIN_ID)
    trusted = chain().light_block(1)
    options = VerificationOptions(CHAIN_ID, trusting_period_ns=7 * _DAY_NS)
    block = LightBlock(signed, chain().set_at(2), chain().set_at(3))
    verify(block, TrustedState.of(trusted), options, trusted.header.time.add_ms(60_000))


def _evidence(data: bytes) -> Evidence:
    found = decode_evidence(data)
    if encode_evidence(found) != data:
        raise OtherSpelling(data.hex())
    _use_evidence(found)
    return found


def _proof(data: bytes) -> None:
    if encode_commitment_proof(decode_commitment_proof(data)) != data:
        raise OtherSpelling(data.hex())
    root = reference_root()
    ics23.verify_membership(data, root, b"key 7", b"value 7")


def _absence(data: bytes) -> None:
    ics23.verify_non_membership(data, reference_root(), b"no such key")


@cache
def reference_root() -> bytes:
    """Root of the tree that the example proofs are from."""
    from dllm_protocol.jmt import root_of

    return root_of(_TREE)


def _merkle(proof: merkle.Proof) -> None:
    merkle.verify(proof, merkle.root(_LEAVES), _LEAVES[1])


def _validators(data: bytes) -> None:
    height, members, total = validators_page_from_json(parsed(data))
    del height, total
    if members:
        ValidatorSet(members).hash()


def _address(written: str) -> None:
    address = decode_address(written, "dllm")
    if encode_address("dllm", address) != written.lower():
        raise OtherSpelling(written)


def _amount(written: str) -> None:
    if parse_dllm(format_dllm(parse_dllm(written))) != parse_dllm(written):
        raise OtherSpelling(written)


def _moment(written: str) -> None:
    if Timestamp.from_rfc3339(Timestamp.from_rfc3339(written).to_rfc3339()) != Timestamp.from_rfc3339(
        written
    ):
        raise OtherSpelling(written)


def _varint(data: bytes) -> None:
    read_uvarint(data, 0)


def _comet_fields(data: bytes) -> None:
    read_comet_fields("message", data, {1: 0, 2: 2, 3: 1}, frozenset({2}))


def _open_sealed(data: bytes) -> None:
    SealingKey(b"\x04" * 32).open_from(data)


def made_attack(chain_: SignedChain) -> LightClientAttackEvidence:
    """The header of height 3 with another app hash, signed by all: lunatic, seen from height 2."""
    header = replace(chain_.blocks[3].header, app_hash=b"\x01" * 32)
    shown = Block(header, chain_.blocks[3].txs, (), chain_.blocks[3].last_commit)
    signed = SignedHeader(header, chain_.signed(shown))
    conflicting = LightBlock(signed, chain_.set_at(3), chain_.set_at(4))
    return evidence_of_attack(conflicting, chain_.light_block(3), chain_.light_block(2))


def _consensus() -> list[Decoder]:
    chain_ = chain()
    evidence = made_evidence(chain_)
    block = chain_.blocks[3]
    with_evidence = Block(chain_.blocks[5].header, (b"tx",), (evidence,), chain_.blocks[5].last_commit)
    commit, header = chain_.commits[4], block.header
    members = chain_.set_at(4)
    wire: list[tuple[str, Callable[[bytes], object], *tuple[bytes, ...]]] = [
        ("header.Header.decode", canonical(Header.decode, _use_header), header.encode()),
        ("commit.Commit.decode", canonical(Commit.decode, _use_commit), commit.encode()),
        ("commit.CommitSig.decode", canonical(CommitSig.decode), commit.signatures[0].encode()),
        ("commit.BlockID.decode", canonical(BlockID.decode), commit.block_id.encode()),
        (
            "commit.PartSetHeader.decode",
            canonical(PartSetHeader.decode),
            commit.block_id.part_set_header.encode(),
        ),
        ("block.Block.decode", canonical(Block.decode, _use_block), block.encode(), with_evidence.encode()),
        ("block.PartSet.from_bytes", lambda data: PartSet.from_bytes(data).parts, bytes(70_000)),
        ("evidence.Vote.decode", canonical(Vote.decode), evidence.vote_a.encode()),
        (
            "evidence.DuplicateVoteEvidence.decode",
            canonical(DuplicateVoteEvidence.decode, _use_evidence),
            evidence.encode(),
        ),
        ("evidence.decode_evidence", _evidence, encode_evidence(evidence)),
        ("validator_set.Validator.decode", canonical(Validator.decode), members.validators[0].encode()),
        (
            "validator_set.ValidatorSet.decode",
            stable(ValidatorSet.decode, lambda one: one.hash()),
            members.encode(),
        ),
        ("timestamp.Timestamp.decode", canonical(Timestamp.decode), header.time.encode()),
        ("comet_wire.read_fields", _comet_fields, b"\x08\x01\x12\x01a"),
    ]
    attack = made_attack(chain_)
    block_of_attack = attack.conflicting_block
    wire += [
        ("light_block.SignedHeader.decode", canonical(SignedHeader.decode), chain_.signed_header(2).encode()),
        (
            "light_attack.ConflictingBlock.decode",
            stable(ConflictingBlock.decode, lambda one: one.validate_basic(CHAIN_ID)),
            block_of_attack.encode(),
        ),
        (
            "light_attack.LightClientAttackEvidence.decode",
            stable(LightClientAttackEvidence.decode, _use_evidence),
            attack.encode(),
        ),
    ]
    return [
        Decoder(f"dllm_protocol.{name}", "consensus", read, (*examples, b""))
        for name, read, *examples in wire
    ]


def _consensus_json() -> list[Decoder]:
    chain_ = chain()
    evidence = made_evidence(chain_)
    block, commit, members = chain_.blocks[4], chain_.commits[4], chain_.set_at(4)
    result = chain_.results[3][1]
    proof = merkle.proof(_LEAVES, 1)
    signed = chain_.signed_header(2)
    table: list[tuple[Callable[[object], object], Callable[[bytes], object], Any]] = [
        (
            header_from_json,
            from_json(header_from_json, header_to_json, _use_header),
            header_to_json(block.header),
        ),
        (commit_from_json, from_json(commit_from_json, commit_to_json, _use_commit), commit_to_json(commit)),
        (
            signed_header_from_json,
            from_json(signed_header_from_json, signed_header_to_json, _judge),
            signed_header_to_json(signed),
        ),
        (
            block_id_from_json,
            from_json(block_id_from_json, block_id_to_json),
            block_id_to_json(commit.block_id),
        ),
        (
            validator_from_json,
            from_json(validator_from_json, validator_to_json),
            validator_to_json(members.validators[0]),
        ),
        (validators_page_from_json, _validators, validators_to_json(4, members)),
        (vote_from_json, from_json(vote_from_json, vote_to_json), vote_to_json(evidence.vote_a)),
        (
            evidence_from_json,
            from_json(evidence_from_json, evidence_to_json, _use_evidence),
            evidence_to_json(evidence),
        ),
        (block_from_json, from_json(block_from_json, block_to_json, _use_block), block_to_json(block)),
        (
            tx_result_from_json,
            from_json(tx_result_from_json, tx_result_to_json, lambda one: one.encode_hashed()),
            tx_result_to_json(result),
        ),
        (
            merkle_proof_from_json,
            from_json(merkle_proof_from_json, merkle_proof_to_json, _merkle),
            merkle_proof_to_json(proof),
        ),
    ]
    return [
        Decoder(name_of(decode), "consensus-json", read, (as_json(example),), is_json=True)
        for decode, read, example in table
    ]


def _others() -> list[Decoder]:
    present = encode_commitment_proof(reference_existence(_TREE, b"key 7"))
    absent = encode_commitment_proof(reference_absence(_TREE, b"no such key"))
    sealed = SealingKey(b"\x05" * 32).seal_to(SealingKey(b"\x04" * 32).public_key, b"hello")
    table: list[tuple[str, str, Callable[[bytes], object], tuple[bytes, ...]]] = [
        ("ics23_codec.decode_commitment_proof", "proofs", _proof, (present, absent)),
        ("ics23.verify_non_membership", "proofs", _absence, (absent, present)),
        (
            "address.decode_address",
            "text",
            text(_address),
            (encode_address("dllm", b"\x07" * 20).encode(), encode_address("local", b"\x07" * 20).encode()),
        ),
        ("units.parse_dllm", "text", text(_amount), (b"1.5", b"0.000001", b"1152921504606.846975")),
        ("timestamp.Timestamp.from_rfc3339", "text", text(_moment), (b"2026-01-01T00:00:00.5Z",)),
        ("protobuf.read_uvarint", "proofs", _varint, (b"\xac\x02",)),
        ("protobuf.read_fields", "proofs", lambda data: list(read_fields(data)), (b"\x08\x01\x12\x01a",)),
        ("messages.unpack_ids", "records", unpack_ids, (b"\x01\x00\x00\x00",)),
        ("messages.unpack_floats", "records", unpack_floats, (b"\x00\x00\x80\x3f",)),
        ("sealing.SealingKey.open_from", "records", _open_sealed, (sealed,)),
    ]
    return [Decoder(f"dllm_protocol.{name}", room, read, examples) for name, room, read, examples in table]


@cache
def golden_records() -> dict[str, tuple[bytes, ...]]:
    """Recorded bytes by the name of their record."""
    recorded: dict[str, Any] = json.loads((VECTORS / "formats.json").read_text("utf-8"))
    found: dict[str, tuple[bytes, ...]] = {}
    for one in [*recorded["actions"], *recorded["state"]]:
        found[one["type"]] = (*found.get(one["type"], ()), bytes.fromhex(one["bytes"]))
    named = {
        "transaction": "Transaction",
        "genesis": "Genesis",
        "signed bundle": "SignedBundle",
        "vocabulary": "Vocabulary",
        "signed voucher": "SignedVoucher",
        "signed ack": "SignedAck",
    }
    return found | {kind: (bytes.fromhex(recorded[name]),) for name, kind in named.items()}


def decoders() -> list[Decoder]:
    """All but the records, which `tests.fuzz.records` finds by themselves."""
    return _consensus() + _consensus_json() + _others()
