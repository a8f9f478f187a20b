"""Who the node is and what chain it has: health, status, net_info, genesis, genesis_chunked."""

from __future__ import annotations

import base64
import json

from dllm_protocol.block_json import validator_to_json
from dllm_protocol.genesis_document import genesis_document
from dllm_protocol.header import BLOCK_VERSION
from dllm_protocol.json_shape import to_hex
from dllm_protocol.jsonrpc.errors import internal_error
from dllm_protocol.jsonrpc.params import Kind
from dllm_protocol.timestamp import GO_ZERO_TIME
from dllm_protocol.validator_set import Validator, address_of
from full_node.rpc.context import JsonObject, Method, Methods, RpcContext

P2P_VERSION = 8
GENESIS_CHUNK_BYTES = 16 << 20


async def health(_context: RpcContext) -> JsonObject:
    """Answers: that is the whole message."""
    return {}


async def status(context: RpcContext) -> JsonObject:
    """The node, how far it is, and its validator."""
    engine = context.engine
    member = engine.validators.by_address(address_of(engine.public_key))
    shown = validator_to_json(member or Validator(engine.public_key, 0))
    return {
        "node_info": {
            "protocol_version": {"p2p": str(P2P_VERSION), "block": str(BLOCK_VERSION), "app": "0"},
            "id": address_of(engine.public_key).hex(),
            "listen_addr": "",
            "network": engine.chain_id,
            "version": context.identity.version,
            "channels": "",
            "moniker": context.identity.moniker,
            "other": {"tx_index": "on", "rpc_address": f"tcp://{context.address}"},
        },
        "sync_info": _sync_info(context),
        "validator_info": {
            "address": shown["address"],
            "pub_key": shown["pub_key"],
            "voting_power": shown["voting_power"],
        },
    }


def _sync_info(context: RpcContext) -> JsonObject:
    blocks = context.engine.store.blocks
    info: JsonObject = {}
    for name, height in (("latest", blocks.latest_height()), ("earliest", blocks.earliest_height())):
        if height:
            meta, header = context.meta(height), context.header(height)
            block_hash, app_hash, time = meta.hash, header.app_hash, header.time
        else:
            block_hash, app_hash, time = b"", b"", GO_ZERO_TIME
        info[f"{name}_block_hash"] = to_hex(block_hash)
        info[f"{name}_app_hash"] = to_hex(app_hash)
        info[f"{name}_block_height"] = str(height)
        info[f"{name}_block_time"] = time.to_rfc3339()
    info["catching_up"] = False
    return info


async def net_info(_context: RpcContext) -> JsonObject:
    """A single validator has no peers."""
    return {"listening": False, "listeners": [], "n_peers": "0", "peers": []}


async def genesis(context: RpcContext) -> JsonObject:
    """The genesis document."""
    document = genesis_document(context.engine.genesis, context.engine.params)
    if len(json.dumps(document)) > GENESIS_CHUNK_BYTES:
        raise internal_error("genesis response is large, please use the genesis_chunked API instead")
    return {"genesis": document}


async def genesis_chunked(context: RpcContext, chunk: int | None) -> JsonObject:
    """A piece of the genesis document's JSON."""
    data = json.dumps(genesis_document(context.engine.genesis, context.engine.params)).encode()
    total = max(1, -(-len(data) // GENESIS_CHUNK_BYTES))
    number = chunk or 0
    if not 0 <= number < total:
        raise internal_error(f"there are {total} chunks, {number} is invalid")
    piece = data[number * GENESIS_CHUNK_BYTES : (number + 1) * GENESIS_CHUNK_BYTES]
    return {"chunk": str(number), "total": str(total), "data": base64.b64encode(piece).decode()}


METHODS: Methods = {
    "health": Method({}, health),
    "status": Method({}, status),
    "net_info": Method({}, net_info),
    "genesis": Method({}, genesis),
    "genesis_chunked": Method({"chunk": Kind.INTEGER}, genesis_chunked),
}
