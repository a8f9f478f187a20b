"""Answers to pings that nobody takes: the websocket library writes one for each ping, whether or not they are read."""

from __future__ import annotations

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.connection import Connection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

UNTAKEN_PONGS_MAX = 64
"""A party that takes nothing for as long as it may has pinged a few times meanwhile."""


class BoundedPongs(Connection):
    """A connection that is cut where the other side pings on and on without taking the answers."""

    _untaken_pongs = 0

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


class DialedConnection(BoundedPongs, ClientConnection):
    """Such a connection to a server."""
