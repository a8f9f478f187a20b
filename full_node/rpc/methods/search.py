"""Finding transactions: tx, tx_search."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from dllm_protocol.block import Block, tx_hash, tx_proof
from dllm_protocol.block_json import merkle_proof_to_json
from dllm_protocol.json_shape import to_base64, to_hex
from dllm_protocol.jsonrpc.errors import internal_error, invalid_params
from dllm_protocol.jsonrpc.params import Kind
from dllm_protocol.jsonrpc.query import Query, parse_query
from full_node.rpc.context import JsonObject, Method, Methods, RpcContext, page_of


async def tx(context: RpcContext, hash: bytes | None, prove: bool | None) -> JsonObject:
    """A transaction with its result, and the proof that it is under its header's data_hash when asked."""
    name = hash or b""
    place = context.engine.store.blocks.find_tx(name)
    if place is None:
        raise internal_error(f"tx ({to_hex(name)}) not found")
    return _answers(context, [place], prove=bool(prove))[0]


async def tx_search(
    context: RpcContext,
    query: str | None,
    prove: bool | None,
    page: int | None,
    per_page: int | None,
    order_by: str | None,
) -> JsonObject:
    """Transactions by events, height or hash."""
    if order_by not in (None, "", "asc", "desc"):
        raise internal_error("expected order_by to be either `asc` or `desc` or empty")
    wanted = parse_query(query or "")
    return await asyncio.to_thread(
        _search, context, wanted, page, per_page, prove=bool(prove), newest_first=order_by == "desc"
    )


def _search(
    context: RpcContext,
    query: Query,
    page: int | None,
    per_page: int | None,
    *,
    prove: bool,
    newest_first: bool,
) -> JsonObject:
    events = [pair for pair in query.equalities if pair[0] not in ("tx.hash", "tm.event")]
    if query.value("tm.event") not in (None, "Tx"):
        raise internal_error("tx_search finds transactions; tm.event can only be 'Tx'")
    named = query.value("tx.hash")
    try:
        name = bytes.fromhex(named) if named is not None else None
    except ValueError as error:
        raise invalid_params(f"tx.hash is not hex: {named!r}") from error
    found = context.engine.store.searches.search(events, (query.low, query.high), name)
    if newest_first:
        found.reverse()
    first, last = page_of(page, per_page, len(found))
    return {"txs": _answers(context, found[first:last], prove=prove), "total_count": str(len(found))}


def _answers(context: RpcContext, places: Sequence[tuple[int, int]], *, prove: bool) -> list[JsonObject]:
    blocks: dict[int, tuple[Block, list[JsonObject]]] = {}
    answers = []
    for height, index in places:
        if height not in blocks:
            stored = context.engine.store.blocks.results(height)
            blocks[height] = context.block(height), json.loads(stored or b"{}")["txs_results"]
        block, results_of = blocks[height]
        raw = block.txs[index]
        answer = {
            "hash": to_hex(tx_hash(raw)),
            "height": str(height),
            "index": index,
            "tx_result": results_of[index],
            "tx": to_base64(raw),
        }
        if prove:
            answer["proof"] = {
                "root_hash": to_hex(block.header.data_hash),
                "data": to_base64(raw),
                "proof": merkle_proof_to_json(tx_proof(block.txs, index)),
            }
        answers.append(answer)
    return answers


METHODS: Methods = {
    "tx": Method({"hash": Kind.OCTETS, "prove": Kind.FLAG}, tx),
    "tx_search": Method(
        {
            "query": Kind.TEXT,
            "prove": Kind.FLAG,
            "page": Kind.INTEGER,
            "per_page": Kind.INTEGER,
            "order_by": Kind.TEXT,
        },
        tx_search,
    ),
}
