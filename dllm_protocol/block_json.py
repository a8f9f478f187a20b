"""CometBFT v0.38's RPC JSON of consensus objects, both directions, strict.

`x_to_json` writes what a v0.38 node answers; `x_from_json` reads exactly that and raises MalformedBlock
for anything else. Nothing is verified here. What a block is made of is shown here with it.
"""

from __future__ import annotations

from dllm_protocol import merkle
from dllm_protocol.block import BLOCK_BYTES_MAX, Block
from dllm_protocol.block_errors import MalformedBlock
from dllm_protocol.commit import UINT32_MAX
from dllm_protocol.evidence_json import evidence_from_json, evidence_to_json, vote_from_json, vote_to_json
from dllm_protocol.header_json import (
    JsonObject,
    block_id_from_json,
    block_id_to_json,
    commit_from_json,
    commit_to_json,
    header_from_json,
    header_to_json,
    signed_header_from_json,
    signed_header_to_json,
    validator_from_json,
    validator_to_json,
    validators_page_from_json,
    validators_to_json,
)
from dllm_protocol.json_shape import base64_bytes, integer, items, number, shape, text, to_base64
from dllm_protocol.results import Event, EventAttribute, ExecTxResult

__all__ = [
    "EVENTS_MAX",
    "TXS_MAX",
    "JsonObject",
    "block_from_json",
    "block_id_from_json",
    "block_id_to_json",
    "block_to_json",
    "commit_from_json",
    "commit_to_json",
    "evidence_from_json",
    "evidence_to_json",
    "header_from_json",
    "header_to_json",
    "merkle_proof_from_json",
    "merkle_proof_to_json",
    "signed_header_from_json",
    "signed_header_to_json",
    "tx_result_from_json",
    "tx_result_to_json",
    "validator_from_json",
    "validator_to_json",
    "validators_page_from_json",
    "validators_to_json",
    "vote_from_json",
    "vote_to_json",
]

TXS_MAX = 1_000_000
EVENTS_MAX = 10_000


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
