"""A real relay on a loopback port, and raw connections to it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from dllm_protocol.encoding import Record
from dllm_protocol.relay import MESSAGE_BYTES_MAX, SUBPROTOCOL, FromRelay, ToRelay, Welcome, relay_name
from full_node.relay.core import Relay
from full_node.relay.limits import RelayLimits
from full_node.relay.server import RelayServer
from light_node.relay.listening import ByKey, ByName, OnStream, RelayListener
from light_node.relay.urls import RelayUrl, relay_url

HOST = "127.0.0.1"
NAME = b"a secret name of sixteen or more"
DEADLINE_S = 60.0
"""So that a test that waits for what never comes fails; nothing is proved by it."""


@dataclass(frozen=True)
class Running:
    """A relay that runs."""

    url: RelayUrl
    relay: Relay
    server: RelayServer

    @asynccontextmanager
    async def raw(self, **options: Any) -> AsyncIterator[ClientConnection]:
        """A connection that was welcomed and has said nothing."""
        offered = {
            "subprotocols": [Subprotocol(SUBPROTOCOL)],
            "proxy": None,
            "max_size": 2 * MESSAGE_BYTES_MAX,
        }
        async with connect(self.url.url, **(offered | options)) as socket:
            assert isinstance(await heard(socket), Welcome)
            yield socket

    @asynccontextmanager
    async def listening(
        self, on_stream: OnStream, who: ByKey | ByName | None = None, *, streams_max: int = 8
    ) -> AsyncIterator[RelayListener]:
        """Somebody listens, by the name unless by a key."""
        listener = RelayListener(self.url, who or ByName(NAME), on_stream, streams_max=streams_max)
        await listener.start()
        task = asyncio.create_task(listener.run())
        try:
            yield listener
        finally:
            task.cancel()
            await asyncio.wait([task])
            await listener.close()


@asynccontextmanager
async def running_relay(
    limits: RelayLimits | None = None, *, port: int = 0, behind_proxy: bool = False
) -> AsyncIterator[Running]:
    """A relay until the block ends."""
    bounds = limits or RelayLimits()
    relay = Relay(bounds, secrets.token_bytes)
    server = RelayServer(relay, bounds, behind_proxy=behind_proxy)
    port = await server.start(HOST, port)
    relay.names = frozenset({relay_name(HOST, port)})
    try:
        async with asyncio.timeout(DEADLINE_S * 3):
            yield Running(relay_url(f"ws://{HOST}:{port}"), relay, server)
    finally:
        await server.stop()


async def heard(socket: ClientConnection) -> Record:
    """The relay's next message."""
    raw = await asyncio.wait_for(socket.recv(), DEADLINE_S)
    assert isinstance(raw, bytes)
    return FromRelay.decode(raw).message


async def said(socket: ClientConnection, message: Record) -> None:
    await socket.send(ToRelay(message).encode())


async def close_code(socket: ClientConnection) -> int:
    """With which code the relay closes."""
    try:
        while True:
            await asyncio.wait_for(socket.recv(), DEADLINE_S)
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd is not None else 1006


async def until(ready: Any) -> None:
    """Wait for what comes by itself."""
    async with asyncio.timeout(DEADLINE_S):
        while not ready():  # noqa: ASYNC110  there is no event for what another connection does
            await asyncio.sleep(0.01)
