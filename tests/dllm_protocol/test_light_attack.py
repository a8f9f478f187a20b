"""Light client attack evidence: kinds, who is guilty, bytes, names, JSON."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from dllm_protocol.block_errors import InvalidBlock, MalformedBlock
from dllm_protocol.block_json import evidence_from_json, evidence_to_json
from dllm_protocol.evidence import decode_evidence, encode_evidence
from dllm_protocol.light_attack import (
    AttackKind,
    LightClientAttackEvidence,
    attack_kind,
    evidence_of_attack,
)
from tests.light_node.attacks import amnesia_fork, equivocation_fork, lunatic_fork
from tests.light_node.signed_chain import SignedChain, signer


@pytest.fixture
def chain() -> SignedChain:
    """Ten blocks by four validators of unlike power."""
    made = SignedChain(("a:5", "b:20", "c:10", "d:10"))
    made.grow(10)
    return made


def evidence_at(chain: SignedChain, fork: SignedChain, height: int, common: int) -> LightClientAttackEvidence:
    return evidence_of_attack(fork.light_block(height), chain.light_block(height), chain.light_block(common))


def keys_of(evidence: LightClientAttackEvidence) -> list[bytes]:
    return [one.public_key for one in evidence.byzantine_validators]


def test_a_made_up_state_is_lunatic_and_accuses_members_of_the_common_set(chain: SignedChain) -> None:
    fork = lunatic_fork(chain, 8, 3, signing=("b:20", "c:10", "d:10"))
    evidence = evidence_at(chain, fork, 10, 7)
    assert attack_kind(fork.signed_header(10), chain.signed_header(10)) is AttackKind.LUNATIC
    assert (evidence.common_height, evidence.timestamp) == (7, chain.blocks[7].header.time)
    assert evidence.total_voting_power == 45
    by_power = sorted(
        ("b", "c", "d"), key=lambda name: (name != "b", sha256(signer(name).public_key).digest())
    )
    assert keys_of(evidence) == [signer(name).public_key for name in by_power]


def test_strangers_to_the_common_set_are_not_accused(chain: SignedChain) -> None:
    fork = chain.forked(8)
    fork.add(next_names=("b:20", "x:50"), lie={"app_hash": b"\x07" * 32})
    fork.grow(2)
    evidence = evidence_at(chain, fork, 10, 7)
    assert keys_of(evidence) == [signer("b").public_key]


def test_two_blocks_in_one_round_are_equivocation_and_accuse_who_signed_both(chain: SignedChain) -> None:
    honest = chain.forked(10)
    honest.add(signing=("a:5", "b:20", "c:10"))
    fork = equivocation_fork(chain, 10, signing=("b:20", "c:10", "d:10"))
    evidence = evidence_at(honest, fork, 10, 1)
    assert attack_kind(fork.signed_header(10), honest.signed_header(10)) is AttackKind.EQUIVOCATION
    assert (evidence.common_height, evidence.timestamp) == (10, honest.blocks[10].header.time)
    assert keys_of(evidence) == [signer("b").public_key, signer("c").public_key]


def test_two_rounds_are_amnesia_and_accuse_nobody(chain: SignedChain) -> None:
    fork = amnesia_fork(chain, 10)
    evidence = evidence_at(chain, fork, 10, 1)
    assert attack_kind(fork.signed_header(10), chain.signed_header(10)) is AttackKind.AMNESIA
    assert (evidence.common_height, evidence.byzantine_validators) == (10, ())
    # A node tells "none" from "an empty list".
    assert evidence_to_json(evidence)["value"]["ByzantineValidators"] is None


def test_bytes_and_json_lead_back(chain: SignedChain) -> None:
    for fork in (lunatic_fork(chain, 10), equivocation_fork(chain, 10), amnesia_fork(chain, 10)):
        evidence = evidence_at(chain, fork, 10, 9)
        evidence.validate_basic()
        assert decode_evidence(encode_evidence(evidence)) == evidence
        assert decode_evidence(encode_evidence(evidence)).encode() == evidence.encode()
        assert evidence_from_json(evidence_to_json(evidence)) == evidence


def test_the_name_drops_byte_31_and_covers_the_common_height(chain: SignedChain) -> None:
    evidence = evidence_at(chain, lunatic_fork(chain, 8, 3), 10, 7)
    header_hash = evidence.conflicting_block.header.hash()
    assert evidence.hash() == sha256(header_hash[:31] + b"\x00" + b"\x0e").digest()
    fewer = evidence_at(chain, lunatic_fork(chain, 8, 3, signing=("b:20", "c:10", "d:10")), 10, 7)
    assert fewer.conflicting_block.signed_header.commit != evidence.conflicting_block.signed_header.commit
    far = replace(evidence, common_height=64)
    assert far.hash() == sha256(header_hash[:31] + b"\x00" + b"\x80\x01").digest()
    # Golang's PutVarint is zigzag for negative numbers too, though none passes validate_basic.
    below = replace(evidence, common_height=-1)
    assert below.hash() == sha256(header_hash[:31] + b"\x00" + b"\x01").digest()


def test_rules_that_need_no_chain(chain: SignedChain) -> None:
    evidence = evidence_at(chain, lunatic_fork(chain, 8, 3), 10, 7)
    evidence.validate_basic()
    other_set = replace(evidence.conflicting_block, validators=SignedChain(("x",)).set_at(1))
    for changed, words in (
        (replace(evidence, total_voting_power=0), r"zero total voting power \(0\)"),
        (replace(evidence, common_height=0), r"zero common height \(0\)"),
        (replace(evidence, common_height=11), r"\(11 > 10\)"),
        (
            replace(evidence, conflicting_block=other_set),
            "invalid conflicting light block: header validators_hash",
        ),
    ):
        with pytest.raises(InvalidBlock, match=words):
            changed.validate_basic()


def test_bytes_that_are_no_evidence_are_refused(chain: SignedChain) -> None:
    encoded = evidence_at(chain, lunatic_fork(chain, 10), 10, 9).encode()
    for data in (b"", encoded[:-1], encoded + b"\x08\x01"):
        with pytest.raises(MalformedBlock):
            LightClientAttackEvidence.decode(data)
    with pytest.raises(MalformedBlock, match="neither"):
        evidence_from_json({"type": "tendermint/Gossip", "value": {}})
