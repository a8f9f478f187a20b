"""Subscriptions tell of verified blocks only; a node's announcement says no more than when to look."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dllm_protocol.block import tx_hash
from dllm_protocol.block_json import block_from_json, header_from_json
from dllm_protocol.json_shape import to_base64, to_hex
from light_node.proxy.guard import ProxyLimits
from tests.e2e.lying_node import Lie
from tests.light_node.proxy.rig import DEADLINE_S, ChainNode, Proxy, proxy_before, send

ENGINES = ("solo", "cometbft")


class Listener:
    """A websocket to the proxy."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def call(self, method: str, number: int = 1, **params: Any) -> dict[str, Any]:
        await self.socket.send_json({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return await self.next()

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE_S):
            return dict(await self.socket.receive_json())


def listening(proxy: Proxy) -> Any:
    return proxy.http.ws_connect(f"http://{proxy.address}/websocket")


async def test_headers_blocks_and_transactions_are_announced_once_verified(
    node: ChainNode, tmp_path: Path
) -> None:
    async with proxy_before(node, tmp_path) as proxy, listening(proxy) as socket:
        listener = Listener(socket)
        recipient = b"\x31" * 20
        queries = {
            1: "tm.event='NewBlockHeader'",
            2: "tm.event='NewBlock'",
            3: f"tm.event='Tx' AND transfer.recipient='{recipient.hex()}'",
        }
        for number, query in queries.items():
            assert (await listener.call("subscribe", number, query=query))["result"] == {}
        raw = await send(node, recipient)
        told: dict[int, Any] = {}
        while set(told) != set(queries):
            message = await listener.next()
            event = message["result"]
            assert event["query"] == queries[message["id"]]
            value = event["data"]["value"]
            if message["id"] == 2 and not value["block"]["data"]["txs"]:
                continue
            told.setdefault(message["id"], event)
        header = header_from_json(told[1]["data"]["value"]["header"])
        assert header == await proxy.client.verified_header(header.height)
        block = block_from_json(told[2]["data"]["value"]["block"])
        assert raw in block.txs
        assert told[2]["data"]["value"]["result_finalize_block"]["tx_results"][0]["code"] == 0
        found = told[3]["data"]["value"]["TxResult"]
        assert (found["tx"], found["result"]["code"]) == (to_base64(raw), 0)
        assert told[3]["events"]["tx.hash"] == [to_hex(tx_hash(raw))]


async def test_a_made_up_announcement_is_not_passed_on(node: ChainNode, tmp_path: Path) -> None:
    def exaggerate(result: Any, _: Any) -> Any:
        result["data"]["value"]["header"]["app_hash"] = "AB" * 32
        result["events"] = {"tm.event": ["Lie"]}
        return result

    untrue = Lie("event", answer=exaggerate)
    async with proxy_before(node, tmp_path, untrue) as proxy, listening(proxy) as socket:
        listener = Listener(socket)
        await listener.call("subscribe", query="tm.event='NewBlockHeader'")
        await send(node)
        event = (await listener.next())["result"]
        header = header_from_json(event["data"]["value"]["header"])
        assert header == await proxy.client.verified_header(header.height)
        assert event["events"] == {"tm.event": ["NewBlockHeader"]}


async def test_a_lie_ends_the_subscription_with_its_reason(node: ChainNode, tmp_path: Path) -> None:
    def empty(result: Any, _: Any) -> Any:
        result["block"]["data"]["txs"] = [to_base64(b"forged")]
        return result

    untrue = Lie("block", answer=empty)
    async with proxy_before(node, tmp_path, untrue) as proxy, listening(proxy) as socket:
        listener = Listener(socket)
        await listener.call("subscribe", query="tm.event='NewBlock'")
        await send(node)
        error = (await listener.next())["error"]
        assert "subscription was canceled (reason: E_BLOCK_INVALID" in error["data"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("tm.event='Vote'", "'Vote'"),
        ("tx.height>=1", "events None are proved by nothing"),
        ("tm.event='Tx' AND rated.model='guide'", "rated.model"),
        ("nonsense", "failed to parse query"),
    ],
)
async def test_what_nothing_proves_cannot_be_subscribed_to(
    node: ChainNode, tmp_path: Path, query: str, words: str
) -> None:
    async with proxy_before(node, tmp_path) as proxy, listening(proxy) as socket:
        answer = await Listener(socket).call("subscribe", query=query)
        assert words in answer["error"]["data"]


async def test_subscriptions_are_counted_and_given_up(node: ChainNode, tmp_path: Path) -> None:
    limits = ProxyLimits(subscriptions_per_client=1)
    async with proxy_before(node, tmp_path, limits=limits) as proxy, listening(proxy) as socket:
        listener = Listener(socket)
        query = "tm.event='NewBlockHeader'"
        assert (await listener.call("subscribe", query=query))["result"] == {}
        assert "already subscribed" in (await listener.call("subscribe", query=query))["error"]["data"]
        more = await listener.call("subscribe", query="tm.event='NewBlock'")
        assert "max_subscriptions_per_client" in more["error"]["data"]
        assert (await listener.call("unsubscribe", query=query))["result"] == {}
        assert "not found" in (await listener.call("unsubscribe", query=query))["error"]["data"]
        assert "not found" in (await listener.call("unsubscribe_all"))["error"]["data"]
        assert (await listener.call("subscribe", query=query))["result"] == {}
        assert (await listener.call("unsubscribe_all"))["result"] == {}
        assert (await listener.call("health"))["result"] == {}


async def test_garbage_on_the_websocket_is_answered_with_an_error(node: ChainNode, tmp_path: Path) -> None:
    async with proxy_before(node, tmp_path) as proxy, listening(proxy) as socket:
        for text in ("{", "[" * 3_000, '"text"', '{"id":true,"method":"health"}'):
            await socket.send_str(text)
            assert "error" in await socket.receive_json(timeout=DEADLINE_S)
        await socket.send_bytes(b"\x00")
        message = await socket.receive(timeout=DEADLINE_S)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
