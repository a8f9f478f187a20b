"""What a subscription is told of a verified block: NewBlock, NewBlockHeader, Tx in CometBFT's shapes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dllm_protocol.block_json import block_id_to_json, block_to_json, header_to_json, tx_result_to_json
from dllm_protocol.json_shape import to_base64
from dllm_protocol.jsonrpc.query import Query
from dllm_protocol.results import ExecTxResult
from light_node.proxy.context import JsonObject
from light_node.proxy.errors import Unprovable
from light_node.proxy.proving import Proving
from light_node.proxy.tags import Tags, fits, require_served, tags_of

KINDS = ("NewBlock", "NewBlockHeader", "Tx")


def require_subscribable(query: Query) -> None:
    """Refuse a subscription to what nothing proves. Raises Unprovable."""
    require_served(query)
    kind = query.value("tm.event")
    if kind not in KINDS:
        raise Unprovable(
            f"events {kind!r} are proved by nothing", hint=f"tm.event is one of {', '.join(KINDS)}"
        )


async def announcements(proving: Proving, query: Query, height: int) -> AsyncIterator[JsonObject]:
    """The events of a verified height that a query asks for."""
    kind = query.value("tm.event") or ""
    if kind == "Tx":
        async for told in _transactions(proving, query, height):
            yield told
        return
    tags: Tags = {"tm.event": [kind]}
    if not fits(query, tags, height):
        return
    if kind == "NewBlockHeader":
        value = {"header": header_to_json(await proving.header(height))}
    else:
        value = await _new_block(proving, height)
    yield _event(query, kind, value, tags)


async def _transactions(proving: Proving, query: Query, height: int) -> AsyncIterator[JsonObject]:
    if not query.low <= height <= query.high:
        return
    _, block = await proving.block(height)
    results = await _results(proving, height, len(block.txs))
    for index, (raw, result) in enumerate(zip(block.txs, results, strict=True)):
        tags = tags_of(raw, result, height)
        if fits(query, tags, height):
            yield _event(query, "Tx", {"TxResult": _tx_result(height, index, raw, result)}, tags)


async def _new_block(proving: Proving, height: int) -> JsonObject:
    block_id, block = await proving.block(height)
    results = await _results(proving, height, len(block.txs))
    return {
        "block": block_to_json(block),
        "block_id": block_id_to_json(block_id),
        "result_finalize_block": {
            "events": [],
            "tx_results": [tx_result_to_json(one) for one in results],
            "validator_updates": [],
            "consensus_param_updates": None,
            "app_hash": None,
        },
    }


async def _results(proving: Proving, height: int, count: int) -> tuple[ExecTxResult, ...]:
    """Proved by the next header, which follows at once where there were transactions; none need no proof."""
    if count == 0:
        return ()
    results, _ = await proving.results(height)
    return results


def _event(query: Query, kind: str, value: JsonObject, tags: Tags) -> JsonObject:
    return {
        "query": query.text,
        "data": {"type": f"tendermint/event/{kind}", "value": value},
        "events": tags,
    }


def _tx_result(height: int, index: int, raw: bytes, result: ExecTxResult) -> JsonObject:
    told: JsonObject = {"height": str(height), "tx": to_base64(raw), "result": tx_result_to_json(result)}
    if index:
        told["index"] = index  # Go leaves a zero out
    return told
