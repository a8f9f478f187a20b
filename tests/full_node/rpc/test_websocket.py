"""The websocket: calls, subscriptions, and clients that behave badly."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dllm_protocol.block import tx_hash
from dllm_protocol.block_json import block_from_json, header_from_json, tx_result_from_json
from dllm_protocol.json_shape import to_base64, to_hex
from full_node.rpc.guard import RpcLimits
from tests.full_node.doubles import note
from tests.full_node.rpc.harness import Served, served

Socket = aiohttp.ClientWebSocketResponse


async def _call(socket: Socket, number: int, method: str, **params: Any) -> None:
    await socket.send_json({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


async def _next(socket: Socket) -> Any:
    return json.loads(await asyncio.wait_for(socket.receive_str(), 60))


async def _open(node: Served) -> Socket:
    return await node.http.ws_connect(f"{node.url}/websocket")


async def test_every_method_is_there_too(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        socket = await _open(node)
        await node.settle()
        await _call(socket, 1, "status")
        assert (await _next(socket))["result"]["node_info"]["network"] == node.engine.chain_id
        await _call(socket, 2, "nothing")
        assert (await _next(socket))["error"]["code"] == -32601
        await socket.close()


async def test_blocks_headers_and_transactions_are_told(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        await node.settle()
        socket = await _open(node)
        queries = {
            1: "tm.event='NewBlock'",
            2: "tm.event='NewBlockHeader'",
            3: "tm.event='Tx' AND message.sender='a'",
        }
        for number, query in queries.items():
            await _call(socket, number, "subscribe", query=query)
            assert await _next(socket) == {"jsonrpc": "2.0", "id": number, "result": {}}
        raws = [note("b", 0, "y", "2"), note("a", 0, "x", "1")]
        for raw in raws:
            await node.result("broadcast_tx_sync", tx=to_base64(raw))
        told: dict[int, list[Any]] = {1: [], 2: [], 3: []}
        while not (told[3] and len(told[1]) == len(told[2]) >= 2):
            event = await _next(socket)
            assert event["result"]["query"] == queries[event["id"]]
            told[event["id"]].append(event["result"])
        block = block_from_json(told[1][0]["data"]["value"]["block"])
        assert told[1][0]["data"]["type"] == "tendermint/event/NewBlock"
        assert header_from_json(told[2][0]["data"]["value"]["header"]) == block.header
        (tx,) = told[3]
        assert tx["data"]["type"] == "tendermint/event/Tx"
        value = tx["data"]["value"]["TxResult"]
        assert value["tx"] == to_base64(raws[1])
        assert tx_result_from_json(value["result"]).code == 0
        assert tx["events"]["tx.hash"] == [to_hex(tx_hash(raws[1]))]
        assert tx["events"]["tx.height"] == [value["height"]]
        await socket.close()


async def test_unsubscribing_ends_the_news(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        await node.settle()
        socket = await _open(node)
        query = "tm.event='NewBlock'"
        await _call(socket, 1, "subscribe", query=query)
        await _next(socket)
        await _call(socket, 2, "subscribe", query=query)
        assert (await _next(socket))["error"]["data"] == "already subscribed"
        await _call(socket, 3, "unsubscribe", query=query)
        assert (await _next(socket))["result"] == {}
        await node.result("broadcast_tx_commit", tx=to_base64(note("a", 0, "x", "1")))
        for number, method, params in ((4, "unsubscribe", {"query": query}), (5, "unsubscribe_all", {})):
            await _call(socket, number, method, **params)
            answer = await _next(socket)
            assert (answer["id"], answer["error"]["data"]) == (number, "subscription not found")
        await socket.close()


async def test_subscriptions_are_bounded_and_parsed(tmp_path: Path) -> None:
    async with served(tmp_path, limits=RpcLimits(subscriptions_per_client=2)) as node:
        socket = await _open(node)
        for number in range(3):
            await _call(socket, number, "subscribe", query=f"tx.height={number + 1000}")
        answers = [await _next(socket) for _ in range(3)]
        assert [("error" in one) for one in answers] == [False, False, True]
        assert answers[2]["error"]["data"] == "max_subscriptions_per_client 2 reached"
        await _call(socket, 4, "subscribe", query="nonsense")
        assert "failed to parse query" in (await _next(socket))["error"]["data"]
        await _call(socket, 5, "unsubscribe_all")
        assert (await _next(socket))["result"] == {}
        await socket.close()
        assert not node.engine.events._subscriptions


async def test_garbage_is_answered_or_ends_the_connection(tmp_path: Path) -> None:
    async with served(tmp_path, limits=RpcLimits(body_bytes=1000)) as node:
        socket = await _open(node)
        await socket.send_str("{")
        assert (await _next(socket))["error"]["code"] == -32700
        await socket.send_str("[5]")
        assert (await _next(socket))["error"]["code"] == -32600
        await socket.send_bytes(b"binary")
        with pytest.raises(TypeError):
            await asyncio.wait_for(socket.receive_str(), 60)
        assert socket.closed
        long = await _open(node)
        await long.send_str(" " * 1001)
        assert (await asyncio.wait_for(long.receive(), 60)).type in (
            aiohttp.WSMsgType.CLOSE,
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.CLOSING,
        )
        assert await node.result("health") == {}


async def test_websockets_are_bounded(tmp_path: Path) -> None:
    async with served(tmp_path, limits=RpcLimits(websockets=1)) as node:
        first = await _open(node)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await _open(node)
        assert refused.value.status == 503
        await first.close()


async def test_many_calls_at_once_are_all_answered(tmp_path: Path) -> None:
    async with served(tmp_path, limits=RpcLimits(calls_per_websocket=4)) as node:
        socket = await _open(node)
        for number in range(50):
            await _call(socket, number, "health")
        assert sorted([(await _next(socket))["id"] for _ in range(50)]) == list(range(50))
        await socket.close()
