"""Handing transactions in: broadcast_tx_*, check_tx, unconfirmed_txs, num_unconfirmed_txs."""

from __future__ import annotations

import asyncio

from dllm_protocol.block import tx_hash
from dllm_protocol.block_json import tx_result_to_json
from dllm_protocol.errors import DllmError
from dllm_protocol.json_shape import to_base64, to_hex
from dllm_protocol.jsonrpc.errors import internal_error
from dllm_protocol.jsonrpc.params import Kind
from dllm_protocol.results import ExecTxResult
from full_node.consensus.engine import CommittedBlock, Submission
from full_node.consensus.events import Subscription
from full_node.rpc.context import PER_PAGE_DEFAULT, PER_PAGE_MAX, JsonObject, Method, Methods, RpcContext

COMMIT_WAIT_S = 10.0
"""As CometBFT's timeout_broadcast_tx_commit."""
DETACHED_MAX = 1_000
_detached: set[asyncio.Task[None]] = set()


async def broadcast_tx_sync(context: RpcContext, tx: bytes | None) -> JsonObject:
    """Hands a transaction in and says what CheckTx said."""
    return _broadcast(await context.engine.submit(_given(tx)))


async def broadcast_tx_async(context: RpcContext, tx: bytes | None) -> JsonObject:
    """Hands a transaction in and says nothing of it."""
    raw = _given(tx)
    if len(_detached) >= DETACHED_MAX:
        raise internal_error(f"{DETACHED_MAX} transactions are on their way already")
    task = asyncio.create_task(_submit_quietly(context, raw))
    _detached.add(task)
    task.add_done_callback(_detached.discard)
    return _broadcast(Submission(tx_hash(raw), 0))


async def _submit_quietly(context: RpcContext, raw: bytes) -> None:
    try:
        await context.engine.submit(raw)
    except DllmError:
        # The caller chose not to hear of it: that is what "async" means here.
        return


async def broadcast_tx_commit(context: RpcContext, tx: bytes | None) -> JsonObject:
    """Hands a transaction in and waits for its block."""
    raw = _given(tx)
    subscription = context.engine.events.subscribe()
    try:
        said = await context.engine.submit(raw)
        answer: JsonObject = {
            "check_tx": _check_tx(said),
            "tx_result": tx_result_to_json(ExecTxResult()),
            "hash": to_hex(said.hash),
            "height": "0",
        }
        if said.code:
            return answer
        async with asyncio.timeout(COMMIT_WAIT_S):
            made, place = await _block_with(subscription, raw)
    except TimeoutError as error:
        raise internal_error("timed out waiting for tx to be included in a block") from error
    finally:
        context.engine.events.unsubscribe(subscription)
    answer["tx_result"] = tx_result_to_json(made.results[place])
    answer["height"] = str(made.block.header.height)
    return answer


async def _block_with(subscription: Subscription, raw: bytes) -> tuple[CommittedBlock, int]:
    while (made := await subscription.next()) is not None:
        if raw in made.block.txs:
            return made, made.block.txs.index(raw)
    raise internal_error("the node stopped before the transaction was in a block")


async def check_tx(context: RpcContext, tx: bytes | None) -> JsonObject:
    """What CheckTx says, without handing the transaction in."""
    return _check_tx(await context.engine.check(_given(tx)))


async def unconfirmed_txs(context: RpcContext, limit: int | None) -> JsonObject:
    """Transactions that wait for a block."""
    wanted = PER_PAGE_DEFAULT if limit is None or limit < 1 else min(limit, PER_PAGE_MAX)
    view = await context.engine.pending(wanted)
    return {
        "n_txs": str(len(view.txs)),
        "total": str(view.count),
        "total_bytes": str(view.total_bytes),
        "txs": [to_base64(one) for one in view.txs],
    }


async def num_unconfirmed_txs(context: RpcContext) -> JsonObject:
    """How many wait."""
    view = await context.engine.pending(0)
    return {
        "n_txs": str(view.count),
        "total": str(view.count),
        "total_bytes": str(view.total_bytes),
        "txs": None,
    }


def _given(tx: bytes | None) -> bytes:
    if not tx:
        raise internal_error("tx is empty")
    return tx


def _broadcast(said: Submission) -> JsonObject:
    return {
        "code": said.code,
        "data": "",
        "log": said.log,
        "codespace": said.codespace,
        "hash": to_hex(said.hash),
    }


def _check_tx(said: Submission) -> JsonObject:
    return tx_result_to_json(ExecTxResult(code=said.code, log=said.log, codespace=said.codespace))


_TX = {"tx": Kind.OCTETS}
METHODS: Methods = {
    "broadcast_tx_sync": Method(_TX, broadcast_tx_sync),
    "broadcast_tx_async": Method(_TX, broadcast_tx_async),
    "broadcast_tx_commit": Method(_TX, broadcast_tx_commit),
    "check_tx": Method(_TX, check_tx),
    "unconfirmed_txs": Method({"limit": Kind.INTEGER}, unconfirmed_txs),
    "num_unconfirmed_txs": Method({}, num_unconfirmed_txs),
}
