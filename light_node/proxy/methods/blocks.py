"""Blocks and what signs them: header, commit, block, block_results, blockchain, validators, consensus_params."""

from __future__ import annotations

from dataclasses import replace

from dllm_protocol.block import Block
from dllm_protocol.block_json import (
    block_id_to_json,
    block_to_json,
    header_to_json,
    signed_header_to_json,
    tx_result_to_json,
    validators_to_json,
)
from dllm_protocol.commit import BlockID
from dllm_protocol.genesis_document import consensus_params_of
from dllm_protocol.json_shape import to_base64, to_hex
from dllm_protocol.jsonrpc.errors import internal_error
from dllm_protocol.jsonrpc.params import Kind
from dllm_protocol.validator_set import Validator
from light_node.errors import HeightUnavailable
from light_node.proxy.context import JsonObject, Method, Methods, ProxyContext, asked_height, page_of
from light_node.proxy.errors import Unprovable

METAS_MAX = 20


async def header(context: ProxyContext, height: int | None) -> JsonObject:
    """The verified header at a height."""
    return {"header": header_to_json(await context.proving.header(asked_height(height)))}


async def header_by_hash(context: ProxyContext, hash: bytes | None) -> JsonObject:
    """The verified header with a hash."""
    return {"header": header_to_json(await context.proving.header(await _height_of(context, hash)))}


async def commit(context: ProxyContext, height: int | None) -> JsonObject:
    """A verified header and its commit; signatures that do not hold are shown as absent."""
    tip = await context.proving.tip()
    signed = await context.proving.signed_header(asked_height(height) or tip.height)
    canonical = signed.header.height < tip.height
    return {"signed_header": signed_header_to_json(signed), "canonical": canonical}


async def block(context: ProxyContext, height: int | None) -> JsonObject:
    """A block of which every byte is covered by its verified id."""
    return _block(*await context.proving.block(asked_height(height)))


async def block_by_hash(context: ProxyContext, hash: bytes | None) -> JsonObject:
    """The same by hash."""
    return _block(*await context.proving.block(await _height_of(context, hash)))


async def block_results(context: ProxyContext, height: int | None) -> JsonObject:
    """What a block's transactions came to (codes, data, gas), the changed validators and the state root."""
    asked = asked_height(height) or await context.proving.provable_height()
    results, following = await context.proving.results(asked)
    changed = await context.proving.changed_validators(following)
    return {
        "height": str(asked),
        "txs_results": [tx_result_to_json(one) for one in results] or None,
        "finalize_block_events": None,
        "validator_updates": [_update(one) for one in changed] or None,
        "consensus_param_updates": None,
        "app_hash": to_base64(following.app_hash),
    }


async def blockchain(
    context: ProxyContext,
    minHeight: int | None,  # noqa: N803 - CometBFT's name
    maxHeight: int | None,  # noqa: N803 - CometBFT's name
) -> JsonObject:
    """Headers of a range, newest first, at most 20, each with the size of its block, counted here."""
    proving = context.proving
    tip = await proving.tip()
    low, high = _range(minHeight or 0, maxHeight or 0, tip.height)
    expected = await proving.block_id(await proving.header(high))
    metas: list[JsonObject] = []
    for height in range(high, low - 1, -1):
        try:
            found, whole = await proving.block_named(height, expected)
        except HeightUnavailable:
            if not metas:
                raise
            break  # the node keeps no older blocks: a range ends there, as a full node's own does
        metas.append(_meta(found, whole))
        expected = whole.header.last_block_id
    return {"last_height": str(tip.height), "block_metas": metas}


async def validators(
    context: ProxyContext, height: int | None, page: int | None, per_page: int | None
) -> JsonObject:
    """The set that signs a height, which may be the next one."""
    asked, members = await context.proving.validators(asked_height(height))
    first, last = page_of(page, per_page, len(members))
    return validators_to_json(asked, members, members.validators[first:last])


async def consensus_params(context: ProxyContext, height: int | None) -> JsonObject:
    """Consensus parameters: those of genesis, which the header's hash says are still in force; its app version."""
    at = await context.proving.header(asked_height(height))
    params = consensus_params_of(context.genesis)
    if params.hash() != at.consensus_hash:
        raise Unprovable(
            f"header {at.height} has consensus hash {to_hex(at.consensus_hash)}, genesis gives "
            f"{to_hex(params.hash())}: what changed is proved by nothing"
        )
    shown = replace(params, app_version=at.app_version)
    return {"block_height": str(at.height), "consensus_params": shown.to_json()}


async def _height_of(context: ProxyContext, block_hash: bytes | None) -> int:
    if not block_hash:
        raise internal_error("a hash is needed")
    height = await context.proving.height_of(block_hash)
    if height is None:
        raise Unprovable(
            f"the node says that it has no block {to_hex(block_hash)}, which nothing proves",
            hint="ask by height",
        )
    return height


def _range(low: int, high: int, tip: int) -> tuple[int, int]:
    if low < 0 or high < 0:
        raise internal_error("heights must be non-negative")
    high = min(high or tip, tip)
    low = max(low or 1, high - METAS_MAX + 1)
    if low > high:
        raise internal_error(f"min height {low} can't be greater than max height {high}")
    return low, high


def _block(block_id: BlockID, whole: Block) -> JsonObject:
    return {"block_id": block_id_to_json(block_id), "block": block_to_json(whole)}


def _meta(block_id: BlockID, whole: Block) -> JsonObject:
    return {
        "block_id": block_id_to_json(block_id),
        "block_size": str(len(whole.encode())),
        "header": header_to_json(whole.header),
        "num_txs": str(len(whole.txs)),
    }


def _update(member: Validator) -> JsonObject:
    """As CometBFT's JSON shows a validator update of the application."""
    key = {"type": "tendermint.crypto.PublicKey_Ed25519", "value": {"ed25519": to_base64(member.public_key)}}
    return {"pub_key": {"Sum": key}, "power": str(member.voting_power)}


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
