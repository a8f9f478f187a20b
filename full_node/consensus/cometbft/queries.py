"""ABCI's Query over the store and the application: the same answers as the solo engine's RPC gives.

With path `/store` (or `/key`) and a key: the value from the state tree, with an ICS-23 proof when asked. The state
after block H is proved by the app hash in header H+1; height 0 therefore means the newest height whose root stands
in a header. Every other path goes to the application, which serves lists that no single key holds.
"""

from __future__ import annotations

from dllm_protocol.errors import DllmError, NotFound
from full_node.consensus.abci import requests, responses
from full_node.consensus.engine import ProposingApplication
from full_node.rpc.methods.state import KEY_BYTES_MAX, PROOF_OP, STORE_PATHS
from full_node.state.store import HeightPruned, Store

REFUSED = 1
CODESPACE = "node"
"""Whose number it is when the node itself refuses, whatever the rules of the chain say."""


def answer_query(store: Store, application: ProposingApplication, asked: requests.Query) -> responses.Query:
    """The answer; a refusal is an answer with a code."""
    try:
        if asked.path in STORE_PATHS:
            return _from_store(store, asked)
        value = application.query(asked.path, asked.data)
        if value is None:
            raise NotFound(f"nothing is served at {asked.path!r} for {asked.data!r}")
    except DllmError as error:
        return responses.Query(
            code=REFUSED, log=error.message, key=asked.data, height=asked.height, codespace=CODESPACE
        )
    return responses.Query(key=asked.data, value=value, height=max(0, store.version))


def _from_store(store: Store, asked: requests.Query) -> responses.Query:
    latest = store.version
    if not 0 < len(asked.data) <= KEY_BYTES_MAX:
        raise HeightPruned(f"a key has 1 to {KEY_BYTES_MAX} bytes, not {len(asked.data)}")
    if asked.height > latest or asked.height < 0 or latest <= 0:
        raise HeightPruned(
            f"height {asked.height} must be less than or equal to the current blockchain height {latest}"
        )
    version = asked.height or latest - 1
    if not asked.prove:
        value = store.value_at(asked.data, version)
        return responses.Query(key=asked.data, value=value or b"", height=version)
    found = store.prove(asked.data, version)
    return responses.Query(
        key=asked.data, value=found.value or b"", proof_type=PROOF_OP, proof=found.proof, height=version
    )
