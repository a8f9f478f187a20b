"""What a subscription is told of a block: NewBlock, NewBlockHeader, Tx events in CometBFT's shapes."""

from __future__ import annotations

from collections.abc import Iterator

from dllm_protocol.block import tx_hash
from dllm_protocol.block_json import block_id_to_json, block_to_json, header_to_json, tx_result_to_json
from dllm_protocol.json_shape import to_base64, to_hex
from dllm_protocol.jsonrpc.query import Query
from dllm_protocol.results import ExecTxResult
from full_node.consensus.engine import CommittedBlock
from full_node.rpc.context import JsonObject

_Tags = dict[str, list[str]]


def announcements(query: Query, made: CommittedBlock) -> Iterator[JsonObject]:
    """The events of a block that a query asks for."""
    kind = query.value("tm.event")
    height = made.block.header.height
    if kind == "NewBlock":
        tags: _Tags = {"tm.event": [kind]}
        if _fits(query, tags, height):
            yield _event(query, kind, _new_block(made), tags)
    elif kind == "NewBlockHeader":
        tags = {"tm.event": [kind]}
        if _fits(query, tags, height):
            yield _event(query, kind, {"header": header_to_json(made.block.header)}, tags)
    elif kind in ("Tx", None):
        for index, (raw, result) in enumerate(zip(made.block.txs, made.results, strict=True)):
            tags = _tags_of(raw, result, height)
            if _fits(query, tags, height):
                yield _event(query, "Tx", {"TxResult": _tx_result(height, index, raw, result)}, tags)


def _fits(query: Query, tags: _Tags, height: int) -> bool:
    in_range = query.low <= height <= query.high
    return in_range and all(value in tags.get(name, ()) for name, value in query.equalities)


def _event(query: Query, kind: str, value: JsonObject, tags: _Tags) -> JsonObject:
    return {
        "query": query.text,
        "data": {"type": f"tendermint/event/{kind}", "value": value},
        "events": tags,
    }


def _new_block(made: CommittedBlock) -> JsonObject:
    return {
        "block": block_to_json(made.block),
        "block_id": block_id_to_json(made.block_id),
        "result_finalize_block": {
            "events": [],
            "tx_results": [tx_result_to_json(one) for one in made.results],
            "validator_updates": [],
            "consensus_param_updates": None,
            "app_hash": None,
        },
    }


def _tx_result(height: int, index: int, raw: bytes, result: ExecTxResult) -> JsonObject:
    told: JsonObject = {"height": str(height), "tx": to_base64(raw), "result": tx_result_to_json(result)}
    if index:
        told["index"] = index  # Go leaves a zero out
    return told


def _tags_of(raw: bytes, result: ExecTxResult, height: int) -> _Tags:
    tags: _Tags = {"tm.event": ["Tx"], "tx.hash": [to_hex(tx_hash(raw))], "tx.height": [str(height)]}
    for event in result.events:
        for attribute in event.attributes:
            tags.setdefault(f"{event.type}.{attribute.key}", []).append(attribute.value)
    return tags
