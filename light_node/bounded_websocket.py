"""Bounds that the websocket library leaves open: bytes read at once, pings whose answers nobody takes, redirects."""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

READ_BYTES = 16 * 1024
"""Bytes that are read at once. All messages in them are kept before reading pauses, some 2,700 at worst."""
UNTAKEN_PONGS_MAX = 64
"""A party that takes nothing for as long as it may has pinged a few times meanwhile."""


class BoundedConnection(Connection):
    """A connection that reads little at once, and is cut where the other side pings on without taking the answers."""

    _untaken_pongs = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read little at once."""
        super().connection_made(transport)
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # asyncio's own bound, 256 KiB if not said

    def process_event(self, event: Event) -> None:
        """Count the pings that come while what was sent waits."""
        super().process_event(event)
        if self.paused and isinstance(event, Frame) and event.opcode is Opcode.PING:
            self._untaken_pongs += 1
            if self._untaken_pongs > UNTAKEN_PONGS_MAX:
                self.transport.abort()

    def resume_writing(self) -> None:
        """The other side takes what was sent again."""
        super().resume_writing()
        self._untaken_pongs = 0


class DialedConnection(BoundedConnection, ClientConnection):
    """Such a connection to a server."""


class Dial(connect):
    """A connection that goes where it was sent, and nowhere else."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow nobody."""
        return exc
