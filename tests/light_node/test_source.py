"""JSON-RPC over one websocket: what an honest node answers is read, everything else is a named error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from dllm_protocol.block import tx_hash
from dllm_protocol.errors import DllmError, MalformedBytes
from light_node.errors import (
    AnswerRefused,
    HeightUnavailable,
    SourceMalformed,
    SourceRefusal,
    SourceTimedOut,
    SourceUnreachable,
)
from light_node.rpc_connection import RpcConnection
from light_node.source import RpcSource
from tests.light_node.rpc_server import ScriptedNode, send_result
from tests.light_node.signed_chain import ChainSource, SignedChain

TX = b"any transaction"


@pytest.fixture
def node() -> ScriptedNode:
    """An honest node of a chain with a transaction in block 3 and 130 validators."""
    made = SignedChain([f"v{number}" for number in range(130)])
    made.grow(2)
    made.add([TX, b"another"], changes={b"key": b"value"})
    made.grow(1)
    return ScriptedNode(ChainSource(made))


@pytest.fixture
async def rpc(node: ScriptedNode) -> AsyncIterator[RpcSource]:
    """A source connected to it."""
    async with node.running() as url:
        source = RpcSource(url, timeout_s=5, message_bytes_max=1 << 20)
        yield source
        await source.close()


async def test_every_call_of_an_honest_node(node: ScriptedNode, rpc: RpcSource) -> None:
    honest, chain = node.source, node.source.chain
    assert await rpc.status() == await honest.status()
    assert await rpc.signed_header(None) == chain.signed_header(4)
    assert await rpc.signed_header(2) == chain.signed_header(2)
    assert await rpc.validators(5) == chain.set_at(5)
    assert await rpc.block(3) == await honest.block(3)
    assert await rpc.block_results(3) == chain.results[3]
    assert await rpc.block_results(2) == ()
    for key in (b"key", b"absent"):
        asked = await rpc.abci_query("/store", key, 3, prove=True)
        assert asked == await honest.abci_query("/store", key, 3, prove=True)
    assert await rpc.abci_query("/store", b"key", 3, prove=False) == await honest.abci_query(
        "/store", b"key", 3, prove=False
    )
    assert await rpc.broadcast_tx_sync(TX) == await honest.broadcast_tx_sync(TX)
    assert await rpc.tx(tx_hash(TX)) == await honest.tx(tx_hash(TX))
    assert await rpc.tx(tx_hash(b"never sent")) is None
    assert await rpc.tx_search("tx.height=3", 1, 30) == ((), 0)
    assert [height async for height in _first(rpc.new_heights())] == [4]
    assert node.connections == 1


async def _first(heights: AsyncIterator[int]) -> AsyncIterator[int]:
    async for height in heights:
        yield height
        return


async def test_calls_overtake_each_other_on_one_connection(node: ScriptedNode, rpc: RpcSource) -> None:
    later = asyncio.Event()

    async def slow(socket: ServerConnection, request: dict[str, Any]) -> None:
        await later.wait()
        await send_result(socket, request, {"height": "3", "txs_results": None})

    node.scripts["block_results"] = slow
    waiting = asyncio.create_task(rpc.block_results(3))
    assert (await rpc.status()).latest_height == 4
    assert not waiting.done()
    later.set()
    assert await waiting == ()
    assert node.connections == 1


async def test_the_token_is_sent_and_not_shown(node: ScriptedNode) -> None:
    async with node.running() as url:
        source = RpcSource(url, token="a-secret")
        await source.status()
        await source.close()
    assert node.authorisations == ["Bearer a-secret"]
    assert "a-secret" not in repr(source)


async def test_errors_of_the_node_keep_their_words(node: ScriptedNode, rpc: RpcSource) -> None:
    with pytest.raises(HeightUnavailable, match="must be less than or equal to 4"):
        await rpc.signed_header(9)

    async def broken(socket: ServerConnection, request: dict[str, Any]) -> None:
        answer = {
            "jsonrpc": "2.0",
            "id": request["id"],
            "error": {"code": -1, "message": "no", "data": "x" * 9999},
        }
        await socket.send(json.dumps(answer))

    node.scripts["status"] = broken
    with pytest.raises(SourceRefusal) as caught:
        await rpc.status()
    assert len(caught.value.message) < 500


async def test_an_answer_for_another_height_is_refused(node: ScriptedNode, rpc: RpcSource) -> None:
    async def stale(socket: ServerConnection, request: dict[str, Any]) -> None:
        request["params"]["height"] = "1"
        await send_result(socket, request, await node._result(request["method"], request["params"]))

    for method in ("commit", "validators", "block", "block_results"):
        node.scripts[method] = stale
    for call in (rpc.signed_header(3), rpc.validators(3), rpc.block(3), rpc.block_results(3)):
        with pytest.raises(AnswerRefused, match="asked 3, answered 1"):
            await call


async def test_a_transaction_that_was_not_asked_is_refused(node: ScriptedNode, rpc: RpcSource) -> None:
    async def another(socket: ServerConnection, request: dict[str, Any]) -> None:
        from dllm_protocol.json_shape import to_base64

        await send_result(socket, request, await node._result("tx", {"hash": to_base64(tx_hash(b"another"))}))

    node.scripts["tx"] = another
    with pytest.raises(AnswerRefused, match="transaction asked"):
        await rpc.tx(tx_hash(TX))


async def test_a_silent_node_times_out_and_the_connection_lives_on(node: ScriptedNode) -> None:
    async def silent(socket: ServerConnection, request: dict[str, Any]) -> None:
        await asyncio.sleep(0)

    node.scripts["block"] = silent
    async with node.running() as url:
        source = RpcSource(url, timeout_s=1)
        with pytest.raises(SourceTimedOut, match=r"did not answer block within 1 s"):
            await source.block(3)
        assert (await source.status()).latest_height == 4
        await source.close()
    assert node.connections == 1


async def test_an_oversized_answer_ends_the_connection_only(node: ScriptedNode, rpc: RpcSource) -> None:
    async def huge(socket: ServerConnection, request: dict[str, Any]) -> None:
        await send_result(socket, request, "x" * (2 << 20))

    node.scripts["block"] = huge
    with pytest.raises(SourceMalformed, match="sent a message above 1048576 bytes"):
        await rpc.block(3)
    assert (await rpc.status()).latest_height == 4
    assert node.connections == 2


async def test_an_answer_is_no_longer_than_its_question_allows(node: ScriptedNode, rpc: RpcSource) -> None:
    async def long(socket: ServerConnection, request: dict[str, Any]) -> None:
        await send_result(socket, request, "x" * 300_000)

    node.scripts["validators"] = long
    with pytest.raises(SourceMalformed, match="at most 262144 are taken in answer to validators"):
        await rpc.validators(3)
    assert (await rpc.status()).latest_height == 4


async def test_an_answer_that_comes_too_late_is_dropped_whatever_its_size(node: ScriptedNode) -> None:
    late = asyncio.Event()

    async def after_a_while(socket: ServerConnection, request: dict[str, Any]) -> None:
        await late.wait()
        await send_result(socket, request, "x" * 2_000_000)

    node.scripts["block"] = after_a_while
    async with node.running() as url:
        connection = RpcConnection(url, timeout_s=60)
        with pytest.raises(SourceTimedOut):
            await connection.call("block", {"height": "3"}, timeout_s=0.2, bytes_max=4 << 20)
        late.set()
        for _ in range(20):
            assert await connection.call("status", {})
        await connection.close()
    assert node.connections == 1


@pytest.mark.parametrize("garbage", ["not json", "[1]", '{"id": "text"}', "[" * 200_000, b"\xff\xfe"])
async def test_garbage_ends_the_connection_only(
    node: ScriptedNode, rpc: RpcSource, garbage: str | bytes
) -> None:
    async def send_garbage(socket: ServerConnection, request: dict[str, Any]) -> None:
        await socket.send(garbage)

    node.scripts["block"] = send_garbage
    with pytest.raises(SourceMalformed, match=r"not JSON|without a numeric id"):
        await rpc.block(3)
    assert (await rpc.status()).latest_height == 4


@pytest.mark.parametrize("result", [None, 1, "text", [], {}, {"signed_header": None}, {"response": 5}])
async def test_answers_of_another_shape_are_named_errors(
    node: ScriptedNode, rpc: RpcSource, result: object
) -> None:
    async def misshapen(socket: ServerConnection, request: dict[str, Any]) -> None:
        await send_result(socket, request, result)

    for method in ("status", "commit", "validators", "block", "block_results", "abci_query", "tx"):
        node.scripts[method] = misshapen
    for call in (
        rpc.status(),
        rpc.signed_header(3),
        rpc.validators(3),
        rpc.block(3),
        rpc.block_results(3),
        rpc.abci_query("/store", b"k", 3, prove=True),
        rpc.tx(tx_hash(TX)),
    ):
        with pytest.raises(MalformedBytes):
            await call


async def test_endless_pages_of_validators_end(node: ScriptedNode, rpc: RpcSource) -> None:
    async def no_members(socket: ServerConnection, request: dict[str, Any]) -> None:
        await send_result(
            socket, request, {"block_height": "3", "validators": [], "count": "0", "total": "130"}
        )

    node.scripts["validators"] = no_members
    with pytest.raises(SourceMalformed, match="pages 0 validators"):
        await rpc.validators(3)
    assert node.calls.count("validators") == 1


async def test_nobody_there(unused_tcp_port: int) -> None:
    source = RpcSource(f"ws://127.0.0.1:{unused_tcp_port}/websocket")
    with pytest.raises(SourceUnreachable, match=r"cannot talk to .*: nobody listens there") as caught:
        await source.status()
    assert caught.value.hint
    await source.close()
    with pytest.raises(DllmError):
        await source.status()


async def test_a_subscription_ends_with_the_connection(node: ScriptedNode) -> None:
    seen = []
    async with node.running() as url:
        source = RpcSource(url)
        heights = source.new_heights()
        seen.append(await anext(heights))
        closing = asyncio.create_task(source.close())
        with pytest.raises(SourceUnreachable):
            await anext(heights)
        await closing
    assert seen == [4]
