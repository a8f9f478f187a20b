"""The application's state: abci_info, abci_query, each bound to a key, a height and a verified header."""

from __future__ import annotations

from dllm_protocol.json_shape import to_base64
from dllm_protocol.jsonrpc.errors import internal_error
from dllm_protocol.jsonrpc.params import Kind
from light_node.answers import PROOF_OP
from light_node.proxy.context import JsonObject, Method, Methods, ProxyContext
from light_node.proxy.errors import Unprovable
from light_node.queries import ProvedValue

STORE_PATHS = frozenset({"/store", "/key"})
KEY_BYTES_MAX = 4096


async def abci_info(context: ProxyContext) -> JsonObject:
    """The newest state that a header proves: its height and root."""
    tip = await context.proving.tip()
    return {
        "response": {
            "data": "dllm",
            "version": "",
            "last_block_height": str(tip.height - 1),
            "last_block_app_hash": to_base64(tip.app_hash),
        }
    }


async def abci_query(
    context: ProxyContext, path: str | None, data: bytes | None, height: int | None, prove: bool | None
) -> JsonObject:
    """A value of the state, or its absence; proved whether the caller wants to see the proof or not."""
    if path not in STORE_PATHS:
        raise Unprovable(
            f"path {(path or '')[:100]!r} is answered by the application, and proved by nothing",
            hint="ask /store for a key",
        )
    key = data or b""
    if not 0 < len(key) <= KEY_BYTES_MAX:
        raise internal_error(f"a key has 1 to {KEY_BYTES_MAX} bytes, not {len(key)}")
    if height is not None and height < 0:
        raise internal_error(f"height must be greater than 0, but got {height}")
    found = await context.reads.read(key, height or None)
    return {"response": _response(found, prove=bool(prove))}


def _response(found: ProvedValue, *, prove: bool) -> JsonObject:
    operation = {"type": PROOF_OP, "key": to_base64(found.key), "data": to_base64(found.proof)}
    return {
        "code": 0,
        "log": "",
        "info": "",
        "index": "0",
        "key": to_base64(found.key),
        "value": to_base64(found.value) if found.value is not None else None,
        "proofOps": {"ops": [operation]} if prove else None,
        "height": str(found.height),
        "codespace": "",
    }


METHODS: Methods = {
    "abci_info": Method({}, abci_info),
    "abci_query": Method(
        {"path": Kind.TEXT, "data": Kind.HEX, "height": Kind.INTEGER, "prove": Kind.FLAG}, abci_query
    ),
}
