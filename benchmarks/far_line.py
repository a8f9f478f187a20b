"""A long line on loopback: a TCP port that passes bytes on to another one after half a round trip, each way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from light_node.channel import dialing
from light_node.channel.limits import ChannelLimits
from light_node.channel.link import Link

_READ_BYTES = 1 << 16


class FarLine:
    """Ports that lead to others, each byte later by half of ``round_trip_s``; nothing else is changed."""

    def __init__(self, round_trip_s: float) -> None:
        self._one_way_s = round_trip_s / 2
        self._servers: dict[str, asyncio.Server] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def to(self, endpoint: str) -> str:
        """A ``ws://`` endpoint that leads to another one."""
        target = urlsplit(endpoint)
        server = self._servers.get(endpoint)
        if server is None:

            async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                far_reader, far_writer = await asyncio.open_connection(target.hostname, target.port)
                for one, other in ((reader, far_writer), (far_reader, writer)):
                    task = asyncio.create_task(self._pass_on(one, other))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

            server = self._servers[endpoint] = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        return f"ws://127.0.0.1:{port}{target.path}"

    async def close(self) -> None:
        """Cut everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers.values():
            server.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Bytes arrive in order, each ``one_way_s`` after it was read: what follows does not wait for it."""
        loop = asyncio.get_running_loop()
        while data := await reader.read(_READ_BYTES):
            loop.call_later(self._one_way_s, writer.write, data)
        loop.call_later(self._one_way_s, writer.close)


@asynccontextmanager
async def far_workers(round_trip_s: float) -> AsyncIterator[None]:
    """While it lasts, this process reaches every worker over a line of so long a round trip."""
    line = FarLine(round_trip_s)
    near = dialing._direct

    async def far(url: str, limit_s: float, limits: ChannelLimits) -> Link:
        return await near(await line.to(url), limit_s, limits)

    dialing._direct = far
    try:
        yield
    finally:
        dialing._direct = near
        await line.close()
