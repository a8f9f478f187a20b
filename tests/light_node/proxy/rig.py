"""A real node, perhaps lying, with a light node and its proxy before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.json_shape import to_base64
from light_node.client import LightClient, TrustOptions
from light_node.clock import SystemClock
from light_node.proxy.context import ProxyContext
from light_node.proxy.guard import ProxyDoor, ProxyLimits
from light_node.proxy.proving import Proving
from light_node.proxy.server import ProxyServer
from light_node.proxy.upstream import UpstreamSource
from light_node.queries import ProvedReads
from light_node.trust_store import TrustStore
from tests.e2e.lying_node import Lie, lying_node
from tests.full_node.processes import Sender

TOKEN = "T" * 40
DEADLINE_S = 120.0


@dataclass
class ChainNode:
    """A node with a few transfers in its chain."""

    address: str
    genesis: Genesis
    sender: Sender
    transfers: list[bytes] = field(default_factory=list)
    """Raw transactions that stand in blocks."""

    @property
    def chain_id(self) -> str:
        return chain_id_of(self.genesis)

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def websocket(self) -> str:
        return f"ws://{self.address}/websocket"


@dataclass
class Proxy:
    """A running proxy and how to call it."""

    address: str
    client: LightClient
    http: aiohttp.ClientSession

    async def result(self, method: str, **params: Any) -> Any:
        """The result of a call that must succeed."""
        answer = await self.answer(method, **params)
        assert "result" in answer, answer
        return answer["result"]

    async def refusal(self, method: str, **params: Any) -> str:
        """The words of a call that must be refused."""
        answer = await self.answer(method, **params)
        assert "error" in answer, answer
        return str(answer["error"]["data"])

    async def answer(self, method: str, **params: Any) -> dict[str, Any]:
        body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        async with self.http.post(f"http://{self.address}/", json=body) as response:
            answer = await response.json()
            assert answer["id"] == 7
            return dict(answer)


@asynccontextmanager
async def proxy_before(
    node: ChainNode,
    folder: Path,
    *lies: Lie,
    witnesses: Sequence[str] = (),
    limits: ProxyLimits | None = None,
) -> AsyncIterator[Proxy]:
    """A proxy whose light node trusts the chain's first header and asks a node that lies."""
    truth = UpstreamSource(node.websocket)
    first = await truth.signed_header(1)
    await truth.close()
    async with lying_node(node.websocket, *lies) as url:
        chain_id = node.chain_id
        store = TrustStore(folder / "light.db", chain_id)
        client = LightClient(
            chain_id,
            TrustOptions(1, first.header.hash()),
            store,
            UpstreamSource(url),
            [UpstreamSource(one) for one in witnesses],
            clock=SystemClock(),
        )
        context = ProxyContext(Proving(client), ProvedReads(client), node.genesis, store, "test")
        server = ProxyServer(context, ProxyDoor(TOKEN), limits)
        address = await server.start()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
        try:
            async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
                yield Proxy(address, client, http)
        finally:
            await server.stop()
            await client.close()


async def send(node: ChainNode, recipient: bytes = b"\x02" * 20, amount_udllm: int = 5) -> bytes:
    """A transfer that is in a block when this returns, with the block that proves its result."""
    raw = node.sender.transfer(recipient, amount_udllm)
    async with aiohttp.ClientSession() as http:

        async def call(method: str, **params: Any) -> Any:
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            async with http.post(node.url, json=body) as response:
                return (await response.json()).get("result")

        said = await call("broadcast_tx_sync", tx=to_base64(raw))
        assert said["code"] == 0, said
        async with asyncio.timeout(DEADLINE_S):
            while True:
                found = await call("tx", hash=to_base64(bytes.fromhex(said["hash"])), prove=False)
                newest = await call("status")
                height = int(newest["sync_info"]["latest_block_height"])
                if found is not None and int(found["height"]) < height:
                    return raw
                await asyncio.sleep(0.05)
