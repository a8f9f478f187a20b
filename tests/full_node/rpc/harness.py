"""A served chain on loopback and a client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from full_node.consensus.solo import SoloEngine, SoloSettings
from full_node.rpc.context import NodeIdentity, RpcContext
from full_node.rpc.guard import Door, RpcLimits
from full_node.rpc.server import RpcServer
from tests.full_node.doubles import ManualClock, open_chain, until_settled


@dataclass
class Served:
    """A running engine, its RPC and a client session."""

    engine: SoloEngine
    url: str
    http: aiohttp.ClientSession

    async def post(self, method: str, **params: Any) -> dict[str, Any]:
        """One call by POST; the whole response."""
        answer: dict[str, Any] = await self.raw(
            {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        )
        return answer

    async def raw(self, body: Any, status: int = 200) -> Any:
        """A POST of any JSON, or of bytes."""
        data = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self.http.post(self.url, **data) as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def result(self, method: str, **params: Any) -> Any:
        """The result of one call by POST."""
        answer = await self.post(method, **params)
        assert "error" not in answer, answer
        return answer["result"]

    async def get(self, path: str, status: int = 200) -> Any:
        """One GET."""
        async with self.http.get(f"{self.url}/{path}") as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def settle(self) -> int:
        """The height at which nothing is left to do."""
        return await until_settled(self.engine)


@asynccontextmanager
async def served(
    home: Path,
    *,
    door: Door | None = None,
    limits: RpcLimits | None = None,
    settings: SoloSettings | None = None,
    headers: dict[str, str] | None = None,
) -> AsyncIterator[Served]:
    """Starts everything on a free port and stops it again."""
    clock = ManualClock()
    engine = SoloEngine(open_chain(home, clock=clock), clock_ns=clock, settings=settings)
    await engine.start()
    server = RpcServer(RpcContext(engine, NodeIdentity("test", "0.1.0")), door or Door(), limits)
    address = await server.start()
    try:
        async with aiohttp.ClientSession(headers=headers) as http:
            yield Served(engine, f"http://{address}", http)
    finally:
        await server.stop()
        await engine.stop()
        engine.store.close()
