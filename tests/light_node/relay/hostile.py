"""Relays that lie, stall and babble: a websocket server that does what a test says, in place of a relay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from dllm_protocol.encoding import Record
from dllm_protocol.relay import SUBPROTOCOL, FromRelay, Opened, ToRelay, Welcome
from light_node.relay.urls import RelayUrl, relay_url

Play = Callable[[ServerConnection], Awaitable[None]]
OPENED = Opened(600_000, 600_000, 1 << 30)


@asynccontextmanager
async def hostile_relay(play: Play, *, subprotocol: str = SUBPROTOCOL) -> AsyncIterator[RelayUrl]:
    """A server that plays its part on every connection, then closes it."""

    async def handle(socket: ServerConnection) -> None:
        try:
            await play(socket)
        except ConnectionClosed:
            return

    offered = [Subprotocol(subprotocol)] if subprotocol else None
    async with serve(handle, "127.0.0.1", 0, subprotocols=offered, compression=None, max_size=None) as server:
        yield relay_url(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        server.close()


async def say(socket: ServerConnection, message: Record) -> None:
    await socket.send(FromRelay(message).encode())


async def welcome(socket: ServerConnection) -> Record:
    """Begin as a relay does; what is asked then."""
    await say(socket, Welcome(bytes(32)))
    raw = await socket.recv()
    assert isinstance(raw, bytes)
    return ToRelay.decode(raw).message


async def silence(_socket: ServerConnection) -> None:
    """Say nothing for as long as anybody listens."""
    await _socket.wait_closed()


async def forever(socket: ServerConnection, message: bytes, pause_s: float) -> None:
    """The same again and again."""
    while True:
        await socket.send(message)
        await asyncio.sleep(pause_s)
