"""CometBFT v0.38's RPC JSON of consensus objects, both directions, strict.

`x_to_json` writes what a v0.38 node answers; `x_from_json` reads exactly that and raises MalformedBlock
for anything else. Nothing is verified here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dllm_protocol import merkle
from dllm_protocol.block import BLOCK_BYTES_MAX, Block, SignedHeader
from dllm_protocol.block_errors import InvalidBlock, MalformedBlock
from dllm_protocol.comet_wire import INT64_MAX, UINT64_MAX
from dllm_protocol.commit import (
    INT32_MAX,
    UINT32_MAX,
    BlockID,
    BlockIDFlag,
    Commit,
    CommitSig,
    PartSetHeader,
)
from dllm_protocol.evidence import DuplicateVoteEvidence, Evidence, Vote
from dllm_protocol.header import Header
from dllm_protocol.json_shape import (
    base64_bytes,
    hex_bytes,
    integer,
    items,
    number,
    shape,
    text,
    to_base64,
    to_hex,
)
from dllm_protocol.results import Event, EventAttribute, ExecTxResult
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import VALIDATORS_MAX, Validator, ValidatorSet

JsonObject = dict[str, Any]

TXS_MAX = 1_000_000
EVENTS_MAX = 10_000
_HASHES = (
    "last_commit_hash",
    "data_hash",
    "validators_hash",
    "next_validators_hash",
    "consensus_hash",
    "app_hash",
    "last_results_hash",
    "evidence_hash",
)
_KEY_TYPE = "tendermint/PubKeyEd25519"
_DUPLICATE_VOTE = "tendermint/DuplicateVoteEvidence"


def block_id_to_json(block_id: BlockID) -> JsonObject:
    """Write a block id."""
    parts = block_id.part_set_header
    return {"hash": to_hex(block_id.hash), "parts": {"total": parts.total, "hash": to_hex(parts.hash)}}


def block_id_from_json(value: object) -> BlockID:
    """Read a block id."""
    fields = shape("block_id", value, ("hash", "parts"))
    parts = shape("block_id.parts", fields["parts"], ("total", "hash"))
    header = PartSetHeader(
        number("block_id.parts.total", parts["total"], 0, UINT32_MAX),
        hex_bytes("block_id.parts.hash", parts["hash"], (0, 32)),
    )
    return BlockID(hex_bytes("block_id.hash", fields["hash"], (0, 32)), header)


def header_to_json(header: Header) -> JsonObject:
    """Write a header; a zero app version is left out, as Go does."""
    version = {"block": str(header.block_version)}
    if header.app_version:
        version["app"] = str(header.app_version)
    return {
        "version": version,
        "chain_id": header.chain_id,
        "height": str(header.height),
        "time": header.time.to_rfc3339(),
        "last_block_id": block_id_to_json(header.last_block_id),
        **{name: to_hex(getattr(header, name)) for name in _HASHES},
        "proposer_address": to_hex(header.proposer_address),
    }


def header_from_json(value: object) -> Header:
    """Read a header."""
    plain = ("version", "chain_id", "height", "time", "last_block_id", "proposer_address")
    fields = shape("header", value, (*plain, *_HASHES))
    version = shape("header.version", fields["version"], ("block",), ("app",))
    return Header(
        chain_id=text("header.chain_id", fields["chain_id"], 50),
        height=integer("header.height", fields["height"], 0),
        time=Timestamp.from_rfc3339(text("header.time", fields["time"], 40)),
        last_block_id=block_id_from_json(fields["last_block_id"]),
        **{name: hex_bytes(f"header.{name}", fields[name]) for name in _HASHES},
        proposer_address=hex_bytes("header.proposer_address", fields["proposer_address"], (0, 20)),
        app_version=integer("header.version.app", version.get("app", "0"), 0, UINT64_MAX),
        block_version=integer("header.version.block", version["block"], 0, UINT64_MAX),
    )


def commit_to_json(commit: Commit) -> JsonObject:
    """Write a commit; an absent signature is null."""
    return {
        "height": str(commit.height),
        "round": commit.round,
        "block_id": block_id_to_json(commit.block_id),
        "signatures": [
            {
                "block_id_flag": int(one.flag),
                "validator_address": to_hex(one.validator_address),
                "timestamp": one.timestamp.to_rfc3339(),
                "signature": to_base64(one.signature) if one.signature else None,
            }
            for one in commit.signatures
        ],
    }


def commit_from_json(value: object) -> Commit:
    """Read a commit."""
    fields = shape("commit", value, ("height", "round", "block_id", "signatures"))
    signatures = items("commit.signatures", fields["signatures"], VALIDATORS_MAX)
    return Commit(
        integer("commit.height", fields["height"], 0),
        number("commit.round", fields["round"], 0, INT32_MAX),
        block_id_from_json(fields["block_id"]),
        tuple(_commit_sig_from_json(one) for one in signatures),
    )


def _commit_sig_from_json(value: object) -> CommitSig:
    fields = shape("signature", value, ("block_id_flag", "validator_address", "timestamp", "signature"))
    return CommitSig(
        BlockIDFlag(number("block_id_flag", fields["block_id_flag"], 1, 3)),
        hex_bytes("validator_address", fields["validator_address"], (0, 20)),
        Timestamp.from_rfc3339(text("signature timestamp", fields["timestamp"], 40)),
        base64_bytes("signature", fields["signature"], 64),
    )


def signed_header_to_json(signed: SignedHeader) -> JsonObject:
    """Write a signed header."""
    return {"header": header_to_json(signed.header), "commit": commit_to_json(signed.commit)}


def signed_header_from_json(value: object) -> SignedHeader:
    """Read a signed header."""
    fields = shape("signed_header", value, ("header", "commit"))
    return SignedHeader(header_from_json(fields["header"]), commit_from_json(fields["commit"]))


def validator_to_json(one: Validator) -> JsonObject:
    """Write a validator."""
    return {
        "address": to_hex(one.address),
        "pub_key": {"type": _KEY_TYPE, "value": to_base64(one.public_key)},
        "voting_power": str(one.voting_power),
        "proposer_priority": str(one.proposer_priority),
    }


def validator_from_json(value: object) -> Validator:
    """Read a validator; its address must be its key's."""
    fields = shape("validator", value, ("address", "pub_key", "voting_power"), ("proposer_priority",))
    key = shape("pub_key", fields["pub_key"], ("type", "value"))
    if key["type"] != _KEY_TYPE:
        raise MalformedBlock(f"validator key type is {str(key['type'])[:60]!r}, not {_KEY_TYPE!r}")
    try:
        one = Validator(
            base64_bytes("pub_key", key["value"], 32),
            integer("voting_power", fields["voting_power"], 0),
            integer("proposer_priority", fields.get("proposer_priority", "0")),
        )
    except InvalidBlock as error:
        raise MalformedBlock(error.message) from error
    address = hex_bytes("validator address", fields["address"], (20,))
    if address != one.address:
        raise MalformedBlock(
            f"validator address {to_hex(address)} is not that of its key, {to_hex(one.address)}"
        )
    return one


def validators_to_json(
    height: int, validators: ValidatorSet, page: Sequence[Validator] | None = None
) -> JsonObject:
    """Write the result of the `validators` call; `page` narrows the list."""
    shown = validators.validators if page is None else page
    return {
        "block_height": str(height),
        "validators": [validator_to_json(one) for one in shown],
        "count": str(len(shown)),
        "total": str(len(validators)),
    }


def validators_page_from_json(value: object) -> tuple[int, tuple[Validator, ...], int]:
    """Read one page of the `validators` call.

    Returns:
        The height it is for, the validators on this page, and how many there are in all.
    """
    fields = shape("validators", value, ("block_height", "validators", "count", "total"))
    members = tuple(
        validator_from_json(one) for one in items("validators", fields["validators"], VALIDATORS_MAX)
    )
    count = integer("validators.count", fields["count"], 0, VALIDATORS_MAX)
    if count != len(members):
        raise MalformedBlock(f"validators.count says {count}, the list has {len(members)}")
    total = integer("validators.total", fields["total"], 0, VALIDATORS_MAX)
    return integer("validators.block_height", fields["block_height"], 0), members, total


def vote_to_json(vote: Vote) -> JsonObject:
    """Write a vote."""
    return {
        "type": vote.type,
        "height": str(vote.height),
        "round": vote.round,
        "block_id": block_id_to_json(vote.block_id),
        "timestamp": vote.timestamp.to_rfc3339(),
        "validator_address": to_hex(vote.validator_address),
        "validator_index": vote.validator_index,
        "signature": to_base64(vote.signature),
        "extension": to_base64(vote.extension) if vote.extension else None,
        "extension_signature": to_base64(vote.extension_signature) if vote.extension_signature else None,
    }


def vote_from_json(value: object) -> Vote:
    """Read a vote."""
    needed = (
        "type",
        "height",
        "round",
        "block_id",
        "timestamp",
        "validator_address",
        "validator_index",
        "signature",
    )
    fields = shape("vote", value, needed, ("extension", "extension_signature"))
    return Vote(
        number("vote.type", fields["type"], 0, INT32_MAX),
        integer("vote.height", fields["height"], 0),
        number("vote.round", fields["round"], 0, INT32_MAX),
        block_id_from_json(fields["block_id"]),
        Timestamp.from_rfc3339(text("vote.timestamp", fields["timestamp"], 40)),
        hex_bytes("vote.validator_address", fields["validator_address"], (0, 20)),
        number("vote.validator_index", fields["validator_index"], 0, INT32_MAX),
        base64_bytes("vote.signature", fields["signature"], 64),
        base64_bytes("vote.extension", fields.get("extension")),
        base64_bytes("vote.extension_signature", fields.get("extension_signature"), 64),
    )


def evidence_to_json(one: Evidence) -> JsonObject:
    """Write one piece of evidence."""
    value = {
        "vote_a": vote_to_json(one.vote_a),
        "vote_b": vote_to_json(one.vote_b),
        "TotalVotingPower": str(one.total_voting_power),
        "ValidatorPower": str(one.validator_power),
        "Timestamp": one.timestamp.to_rfc3339(),
    }
    return {"type": _DUPLICATE_VOTE, "value": value}


def evidence_from_json(value: object) -> Evidence:
    """Read one piece of evidence."""
    outer = shape("evidence", value, ("type", "value"))
    if outer["type"] != _DUPLICATE_VOTE:
        raise MalformedBlock(f"evidence type {str(outer['type'])[:60]!r} is not {_DUPLICATE_VOTE!r}")
    keys = ("vote_a", "vote_b", "TotalVotingPower", "ValidatorPower", "Timestamp")
    fields = shape("evidence value", outer["value"], keys)
    return DuplicateVoteEvidence(
        vote_from_json(fields["vote_a"]),
        vote_from_json(fields["vote_b"]),
        integer("TotalVotingPower", fields["TotalVotingPower"], 0, INT64_MAX),
        integer("ValidatorPower", fields["ValidatorPower"], 0, INT64_MAX),
        Timestamp.from_rfc3339(text("evidence Timestamp", fields["Timestamp"], 40)),
    )


def block_to_json(block: Block) -> JsonObject:
    """Write a block."""
    return {
        "header": header_to_json(block.header),
        "data": {"txs": [to_base64(tx) for tx in block.txs]},
        "evidence": {"evidence": [evidence_to_json(one) for one in block.evidence]},
        "last_commit": commit_to_json(block.last_commit),
    }


def block_from_json(value: object) -> Block:
    """Read a block."""
    fields = shape("block", value, ("header", "data", "evidence", "last_commit"))
    txs = items("data.txs", shape("data", fields["data"], ("txs",))["txs"], TXS_MAX)
    evidence = items("evidence", shape("evidence", fields["evidence"], ("evidence",))["evidence"], TXS_MAX)
    return Block(
        header_from_json(fields["header"]),
        tuple(base64_bytes("tx", one, BLOCK_BYTES_MAX) for one in txs),
        tuple(evidence_from_json(one) for one in evidence),
        commit_from_json(fields["last_commit"]),
    )


def tx_result_to_json(result: ExecTxResult) -> JsonObject:
    """Write the result of a transaction."""
    return {
        "code": result.code,
        "data": to_base64(result.data) if result.data else None,
        "log": result.log,
        "info": result.info,
        "gas_wanted": str(result.gas_wanted),
        "gas_used": str(result.gas_used),
        "events": [
            {
                "type": event.type,
                "attributes": [
                    {"key": one.key, "value": one.value, "index": one.index} for one in event.attributes
                ],
            }
            for event in result.events
        ],
        "codespace": result.codespace,
    }


def tx_result_from_json(value: object) -> ExecTxResult:
    """Read the result of a transaction."""
    optional = ("data", "log", "info", "gas_wanted", "gas_used", "events", "codespace")
    fields = shape("tx_result", value, ("code",), optional)
    return ExecTxResult(
        number("tx_result.code", fields["code"], 0, UINT32_MAX),
        base64_bytes("tx_result.data", fields.get("data")),
        text("tx_result.log", fields.get("log", "")),
        text("tx_result.info", fields.get("info", "")),
        integer("tx_result.gas_wanted", fields.get("gas_wanted", "0")),
        integer("tx_result.gas_used", fields.get("gas_used", "0")),
        tuple(_event_from_json(one) for one in items("tx_result.events", fields.get("events"), EVENTS_MAX)),
        text("tx_result.codespace", fields.get("codespace", "")),
    )


def _event_from_json(value: object) -> Event:
    fields = shape("event", value, ("type", "attributes"))
    attributes = []
    for one in items("event.attributes", fields["attributes"], EVENTS_MAX):
        pair = shape("event attribute", one, ("key", "value"), ("index",))
        index = pair.get("index", False)
        if not isinstance(index, bool):
            raise MalformedBlock(f"event attribute index is {type(index).__name__}, not true or false")
        attributes.append(
            EventAttribute(text("event key", pair["key"]), text("event value", pair["value"]), index)
        )
    return Event(text("event type", fields["type"], 256), tuple(attributes))


def merkle_proof_to_json(proof: merkle.Proof) -> JsonObject:
    """Write a Merkle proof, as `tx` answers carry it."""
    return {
        "total": str(proof.total),
        "index": str(proof.index),
        "leaf_hash": to_base64(proof.leaf_hash),
        "aunts": [to_base64(one) for one in proof.aunts],
    }


def merkle_proof_from_json(value: object) -> merkle.Proof:
    """Read a Merkle proof."""
    fields = shape("proof", value, ("total", "index", "leaf_hash", "aunts"))
    return merkle.Proof(
        integer("proof.total", fields["total"], 0),
        integer("proof.index", fields["index"], 0),
        base64_bytes("proof.leaf_hash", fields["leaf_hash"], 32),
        tuple(
            base64_bytes("aunt", one, 32) for one in items("proof.aunts", fields["aunts"], merkle.AUNTS_MAX)
        ),
    )
