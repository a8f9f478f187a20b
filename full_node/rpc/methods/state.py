"""The application's state: abci_info, abci_query.

`abci_query` with path `/store` (or `/key`) and a key answers from the state tree, with an ICS-23 proof when
asked. The state after block H is proved by the app hash in header H+1; height 0 therefore means the newest
height whose root stands in a header. Every other path goes to the application, which serves lists that no
single key holds.
"""

from __future__ import annotations

from dllm_protocol.errors import DllmError, NotFound
from dllm_protocol.json_shape import to_base64
from dllm_protocol.jsonrpc.params import Kind
from full_node.rpc.context import JsonObject, Method, Methods, RpcContext
from full_node.state.store import HeightPruned

PROOF_OP = "ics23:jmt"
STORE_PATHS = frozenset({"/store", "/key"})
KEY_BYTES_MAX = 4096
_QUERY_REFUSED = 1
_CODESPACE = "node"


async def abci_info(context: RpcContext) -> JsonObject:
    """The application's newest height and root."""
    latest = context.latest_height
    response = {
        "data": "dllm",
        "version": context.identity.version,
        "last_block_height": str(latest),
        "last_block_app_hash": to_base64(context.engine.store.root_at(latest)),
    }
    return {"response": response}


async def abci_query(
    context: RpcContext, path: str | None, data: bytes | None, height: int | None, prove: bool | None
) -> JsonObject:
    """A value of the state with its proof, or a list of the application's."""
    key = data or b""
    try:
        if path in STORE_PATHS:
            return {"response": _from_store(context, key, height or 0, prove=bool(prove))}
        value = await context.engine.query(path or "", key)
        if value is None:
            raise NotFound(f"nothing is served at {path!r} for {key!r}")
    except DllmError as error:
        return {"response": _response(key, code=_QUERY_REFUSED, log=error.message, height=height or 0)}
    return {"response": _response(key, value=value, height=context.latest_height)}


def _from_store(context: RpcContext, key: bytes, height: int, *, prove: bool) -> JsonObject:
    latest = context.latest_height
    if not 0 < len(key) <= KEY_BYTES_MAX:
        return _response(
            b"", code=_QUERY_REFUSED, log=f"a key has 1 to {KEY_BYTES_MAX} bytes, not {len(key)}"
        )
    if height > latest or height < 0 or latest == 0:
        raise HeightPruned(
            f"height {height} must be less than or equal to the current blockchain height {latest}"
        )
    version = height or latest - 1
    store = context.engine.store
    if not prove:
        return _response(key, value=store.value_at(key, version), height=version)
    found = store.prove(key, version)
    return _response(key, value=found.value, height=version, proof=found.proof)


def _response(
    key: bytes,
    *,
    value: bytes | None = None,
    height: int = 0,
    proof: bytes = b"",
    code: int = 0,
    log: str = "",
) -> JsonObject:
    operation = {"type": PROOF_OP, "key": to_base64(key), "data": to_base64(proof)}
    return {
        "code": code,
        "log": log,
        "info": "",
        "index": "0",
        "key": to_base64(key) if key else None,
        "value": to_base64(value) if value else None,
        "proofOps": {"ops": [operation]} if proof else None,
        "height": str(height),
        "codespace": _CODESPACE if code else "",
    }


METHODS: Methods = {
    "abci_info": Method({}, abci_info),
    "abci_query": Method(
        {"path": Kind.TEXT, "data": Kind.HEX, "height": Kind.INTEGER, "prove": Kind.FLAG}, abci_query
    ),
}
