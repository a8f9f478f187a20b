"""Blocks and what signs them: header, commit, block, block_results, blockchain, validators,
consensus_params.
"""

from __future__ import annotations

import json

from dllm_protocol.block import SignedHeader
from dllm_protocol.block_json import (
    block_id_to_json,
    block_to_json,
    header_to_json,
    signed_header_to_json,
    validators_to_json,
)
from dllm_protocol.commit import ZERO_BLOCK_ID
from dllm_protocol.header import Header
from dllm_protocol.json_shape import to_base64
from dllm_protocol.jsonrpc.errors import internal_error
from dllm_protocol.jsonrpc.params import Kind
from full_node.consensus.chain_state import validator_set_of
from full_node.rpc.context import JsonObject, Method, Methods, RpcContext, block_id_of, commit_of, page_of

METAS_MAX = 20


async def header(context: RpcContext, height: int | None) -> JsonObject:
    """The header at a height."""
    return {"header": header_to_json(context.header(context.height_or_latest(height)))}


async def header_by_hash(context: RpcContext, hash: bytes | None) -> JsonObject:
    """The header with a hash; null when there is none."""
    height = context.engine.store.blocks.height_of(hash or b"")
    return {"header": header_to_json(context.header(height)) if height else None}


async def commit(context: RpcContext, height: int | None) -> JsonObject:
    """Header and commit; for the latest height the commit is what this node saw, which no block carries
    yet.
    """
    asked = context.height_or_latest(height)
    meta = context.meta(asked)
    signed = SignedHeader(Header.decode(meta.header), commit_of(meta))
    return {"signed_header": signed_header_to_json(signed), "canonical": asked < context.latest_height}


async def block(context: RpcContext, height: int | None) -> JsonObject:
    """The block at a height."""
    asked = context.height_or_latest(height)
    return {
        "block_id": block_id_to_json(block_id_of(context.meta(asked))),
        "block": block_to_json(context.block(asked)),
    }


async def block_by_hash(context: RpcContext, hash: bytes | None) -> JsonObject:
    """The block with a hash; null when there is none."""
    height = context.engine.store.blocks.height_of(hash or b"")
    if not height:
        return {"block_id": block_id_to_json(ZERO_BLOCK_ID), "block": None}
    return await block(context, height)


async def block_results(context: RpcContext, height: int | None) -> JsonObject:
    """What the transactions of a block came to, and the state root after it."""
    asked = context.height_or_latest(height)
    stored = context.engine.store.blocks.results(asked)
    if stored is None:
        raise internal_error(f"could not find results for height #{asked}")
    document = json.loads(stored)
    newest = asked == context.latest_height
    root = context.engine.store.root_at(asked) if newest else context.header(asked + 1).app_hash
    return {
        "height": str(asked),
        "txs_results": document["txs_results"] or None,
        "finalize_block_events": document["finalize_block_events"],
        "validator_updates": None,
        "consensus_param_updates": None,
        "app_hash": to_base64(root),
    }


async def blockchain(
    context: RpcContext,
    minHeight: int | None,  # noqa: N803 - CometBFT's name
    maxHeight: int | None,  # noqa: N803 - CometBFT's name
) -> JsonObject:
    """Headers of a range, newest first, at most 20."""
    low, high = _range(context, minHeight or 0, maxHeight or 0)
    metas = [
        {
            "block_id": block_id_to_json(block_id_of(meta)),
            "block_size": str(meta.size),
            "header": header_to_json(Header.decode(meta.header)),
            "num_txs": str(meta.tx_count),
        }
        for meta in context.engine.store.blocks.metas(low, high)
    ]
    return {"last_height": str(context.latest_height), "block_metas": metas}


def _range(context: RpcContext, low: int, high: int) -> tuple[int, int]:
    """CometBFT's filterMinMax."""
    if low < 0 or high < 0:
        raise internal_error("heights must be non-negative")
    high = min(high or context.latest_height, context.latest_height)
    low = max(low or 1, context.engine.store.blocks.earliest_height(), high - METAS_MAX + 1)
    if low > high:
        raise internal_error(f"min height {low} can't be greater than max height {high}")
    return low, high


async def validators(
    context: RpcContext, height: int | None, page: int | None, per_page: int | None
) -> JsonObject:
    """The set that signs a height, which may be the next one."""
    latest = context.latest_height
    asked = context.height_or_latest(height, ahead=1)
    name = context.header(asked).validators_hash if asked <= latest else context.engine.validators.hash()
    stored = context.engine.store.blocks.validator_set(name)
    if stored is None:
        raise internal_error(f"validators of height {asked} are not available")
    members = validator_set_of(json.loads(stored))
    first, last = page_of(page, per_page, len(members))
    return validators_to_json(asked, members, members.validators[first:last])


async def consensus_params(context: RpcContext, height: int | None) -> JsonObject:
    """Consensus parameters, which this chain never changes."""
    asked = context.height_or_latest(height, ahead=1)
    return {"block_height": str(asked), "consensus_params": context.engine.params.to_json()}


_HEIGHT = {"height": Kind.INTEGER}
METHODS: Methods = {
    "header": Method(_HEIGHT, header),
    "header_by_hash": Method({"hash": Kind.HEX}, header_by_hash),
    "commit": Method(_HEIGHT, commit),
    "block": Method(_HEIGHT, block),
    "block_by_hash": Method({"hash": Kind.OCTETS}, block_by_hash),
    "block_results": Method(_HEIGHT, block_results),
    "blockchain": Method({"minHeight": Kind.INTEGER, "maxHeight": Kind.INTEGER}, blockchain),
    "validators": Method({**_HEIGHT, "page": Kind.INTEGER, "per_page": Kind.INTEGER}, validators),
    "consensus_params": Method(_HEIGHT, consensus_params),
}
