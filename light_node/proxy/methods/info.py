"""Who answers and what chain it is: health, status, genesis, genesis_chunked."""

from __future__ import annotations

import base64
import json

from dllm_protocol.genesis_document import consensus_params_of, genesis_document
from dllm_protocol.header import BLOCK_VERSION, Header
from dllm_protocol.json_shape import to_hex
from dllm_protocol.jsonrpc.errors import internal_error
from dllm_protocol.jsonrpc.params import Kind
from light_node.client import TrustStatus
from light_node.proxy.context import JsonObject, Method, Methods, ProxyContext

MONIKER = "dllm light proxy"
P2P_VERSION = 8
GENESIS_CHUNK_BYTES = 16 << 20


async def health(context: ProxyContext) -> JsonObject:
    """Nothing, if the newest header is verified; an error if not."""
    await context.proving.tip()
    return {}


async def status(context: ProxyContext) -> JsonObject:
    """The proxy itself: what it verified, and whether it lags. Its earliest block is the lowest that it trusts."""
    proving = context.proving
    tip = await proving.tip()
    fresh = proving.client.status()
    earliest = context.store.earliest()
    return {
        "node_info": {
            "protocol_version": {"p2p": str(P2P_VERSION), "block": str(BLOCK_VERSION), "app": "0"},
            "id": "",
            "listen_addr": "",
            "network": proving.client.chain_id,
            "version": context.version,
            "channels": "",
            "moniker": MONIKER,
            "other": {"tx_index": "on", "rpc_address": ""},
        },
        "sync_info": {
            **_block_info("latest", tip),
            **_block_info("earliest", earliest.header if earliest is not None else tip),
            "catching_up": fresh.state is not TrustStatus.VERIFIED or fresh.lag_blocks > 0,
        },
        "validator_info": {"address": "", "pub_key": None, "voting_power": "0"},
    }


async def genesis(context: ProxyContext) -> JsonObject:
    """The genesis document, written from the record whose hash ends the chain id."""
    data = _document(context)
    if len(data) > GENESIS_CHUNK_BYTES:
        raise internal_error("genesis response is large, please use the genesis_chunked API instead")
    return {"genesis": json.loads(data)}


async def genesis_chunked(context: ProxyContext, chunk: int | None) -> JsonObject:
    """A piece of the genesis document's JSON."""
    data = _document(context)
    total = max(1, -(-len(data) // GENESIS_CHUNK_BYTES))
    number = chunk or 0
    if not 0 <= number < total:
        raise internal_error(f"there are {total} chunks, {number} is invalid")
    piece = data[number * GENESIS_CHUNK_BYTES : (number + 1) * GENESIS_CHUNK_BYTES]
    return {"chunk": str(number), "total": str(total), "data": base64.b64encode(piece).decode()}


def _document(context: ProxyContext) -> bytes:
    record = context.genesis
    return json.dumps(genesis_document(record, consensus_params_of(record))).encode()


def _block_info(name: str, header: Header) -> JsonObject:
    return {
        f"{name}_block_hash": to_hex(header.hash()),
        f"{name}_app_hash": to_hex(header.app_hash),
        f"{name}_block_height": str(header.height),
        f"{name}_block_time": header.time.to_rfc3339(),
    }


METHODS: Methods = {
    "health": Method({}, health),
    "status": Method({}, status),
    "genesis": Method({}, genesis),
    "genesis_chunked": Method({"chunk": Kind.INTEGER}, genesis_chunked),
}
