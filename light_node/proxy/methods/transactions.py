"""Handing in: broadcast_tx_sync, broadcast_tx_async, broadcast_tx_commit, broadcast_evidence.

What a mempool says proves nothing about blocks, so its words are marked as the node's own. The hash is ours, and a
block that is said to carry the transaction is held against its header.
"""

from __future__ import annotations

from dllm_protocol.block import tx_hash
from dllm_protocol.block_errors import require_equal
from dllm_protocol.block_json import tx_result_to_json
from dllm_protocol.evidence_json import evidence_from_json
from dllm_protocol.json_shape import to_base64, to_hex
from dllm_protocol.jsonrpc.errors import internal_error
from dllm_protocol.jsonrpc.params import Kind
from dllm_protocol.results import ExecTxResult
from light_node.answers import BroadcastAnswer
from light_node.errors import AnswerRefused
from light_node.proxy.context import JsonObject, Method, Methods, ProxyContext

UNPROVED = "[the node's word, not proved] "
"""Begins every `log` that comes from a mempool."""


async def broadcast_tx_sync(context: ProxyContext, tx: bytes | None) -> JsonObject:
    """Hands a transaction in and says what the node's mempool said."""
    raw = _given(tx)
    return _broadcast(raw, await context.proving.upstream.broadcast_tx_sync(raw))


async def broadcast_tx_async(context: ProxyContext, tx: bytes | None) -> JsonObject:
    """Hands a transaction in and waits for nothing."""
    raw = _given(tx)
    return _broadcast(raw, await context.proving.upstream.broadcast_tx_async(raw))


async def broadcast_tx_commit(context: ProxyContext, tx: bytes | None) -> JsonObject:
    """Hands a transaction in and waits for its block, which is proved with the result."""
    raw = _given(tx)
    said, height = await context.proving.upstream.broadcast_tx_commit(raw)
    result, proved_height = ExecTxResult(), 0
    if height:
        proved = await context.proving.indexed_transaction(tx_hash(raw))
        if proved is None:
            raise AnswerRefused(
                f"transaction {to_hex(tx_hash(raw))} is said to stand in block {height}, the node cannot show it"
            )
        require_equal("height of the transaction", height, proved.answer.height)
        result, proved_height = proved.result, height
    marked = ExecTxResult(code=said.code, log=UNPROVED + said.log, codespace=said.codespace)
    return {
        "check_tx": tx_result_to_json(marked),
        "tx_result": tx_result_to_json(result),
        "hash": to_hex(tx_hash(raw)),
        "height": str(proved_height),
    }


async def broadcast_evidence(context: ProxyContext, evidence: object) -> JsonObject:
    """Hands evidence of an attack in; its hash is worked out here."""
    if evidence is None:
        raise internal_error("no evidence was provided")
    found = evidence_from_json(evidence)
    found.validate_basic()
    taken = await context.proving.upstream.broadcast_evidence(found)
    require_equal("hash of the evidence that the node took", taken, found.hash())
    return {"hash": to_base64(taken)}  # so CometBFT writes this hash, unlike all others


def _given(tx: bytes | None) -> bytes:
    if not tx:
        raise internal_error("tx is empty")
    return tx


def _broadcast(raw: bytes, said: BroadcastAnswer) -> JsonObject:
    require_equal("hash of the transaction that the node took", said.hash, tx_hash(raw))
    return {
        "code": said.code,
        "data": "",
        "log": UNPROVED + said.log,
        "codespace": "",
        "hash": to_hex(said.hash),
    }


_TX = {"tx": Kind.OCTETS}
METHODS: Methods = {
    "broadcast_tx_sync": Method(_TX, broadcast_tx_sync),
    "broadcast_tx_async": Method(_TX, broadcast_tx_async),
    "broadcast_tx_commit": Method(_TX, broadcast_tx_commit),
    "broadcast_evidence": Method({"evidence": Kind.JSON}, broadcast_evidence),
}
