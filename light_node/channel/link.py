"""One websocket, either end: whole frames in and out, each with a deadline."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket

from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from dllm_protocol.errors import ChannelRefused
from light_node.channel.errors import ChannelLost, ChannelTimedOut
from light_node.channel.limits import WRITE_BUFFER_BYTES, ChannelLimits

NORMAL_CLOSURE, POLICY_VIOLATION = 1000, 1008
_REASON_BYTES = 120


class Link:
    """Frames over one websocket. One task receives; any task sends."""

    def __init__(self, socket: Connection, limits: ChannelLimits, name: str) -> None:
        self.name = name
        """How to call the other side in messages."""
        self._socket = socket
        self._limits = limits

    def __repr__(self) -> str:
        return f"Link({self.name})"

    @property
    def is_local(self) -> bool:
        """Whether the other side is on this machine."""
        address = self._socket.remote_address
        try:
            return bool(address) and ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        except ValueError:
            return False

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing but a socket between this machine and the other side."""
        return self._socket.transport.get_extra_info("sslcontext") is None

    @property
    def is_open(self) -> bool:
        """Whether it stands, as far as this machine knows."""
        return self._socket.state is State.OPEN and not self._socket.transport.is_closing()

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the other side has not taken yet, as far as this machine knows."""
        return self._socket.transport.get_write_buffer_size()

    async def send(self, frame: bytes) -> None:
        """Send one frame; waits while the other side is slow, at most `ChannelLimits.write_ms`.

        Raises:
            ChannelLost: the connection ended.
            ChannelTimedOut: the other side does not read; the connection was cut.
        """
        if not self.send_at_once(frame):
            await self._send(frame)

    def send_at_once(self, frame: bytes) -> bool:
        """Send a frame if that makes nobody wait, as with most: whether it went.

        It does what `Connection.send` does for a connection that stands and has room, in a third of the time.
        """
        socket = self._socket
        if (
            not self.is_open
            or socket.paused
            or socket.send_in_progress is not None
            or self.unsent_bytes + len(frame) >= WRITE_BUFFER_BYTES // 2
        ):
            return False
        socket.protocol.send_binary(frame)
        socket.send_data()
        return True

    async def _send(self, frame: bytes | str) -> None:
        limit_ms = self._limits.write_ms
        try:
            async with asyncio.timeout(limit_ms / 1000):
                await self._socket.send(frame)
        except TimeoutError as error:
            self.abort()
            raise ChannelTimedOut(
                f"{self.name} left {self.unsent_bytes} bytes unread for {limit_ms} ms",
                hint="it reads too slowly, or the network does",
            ) from error
        except ConnectionClosed as error:
            raise self._lost(error) from error

    async def receive(self, timeout_ms: int | None = None) -> bytes:
        """The next frame.

        Args:
            timeout_ms: how long to wait; `ChannelLimits.idle_ms` where None.

        Raises:
            ChannelLost: the connection ended.
            ChannelTimedOut: nothing came; the connection stands.
            ChannelRefused: text came, where sealed frames are bytes.
        """
        limit_ms = self._limits.idle_ms if timeout_ms is None else timeout_ms
        try:
            async with asyncio.timeout(limit_ms / 1000):
                frame = await self._socket.recv()
        except TimeoutError as error:
            raise ChannelTimedOut(f"{self.name} said nothing for {limit_ms} ms") from error
        except ConnectionClosed as error:
            raise self._lost(error) from error
        if isinstance(frame, str):
            raise ChannelRefused(f"{self.name} sent text; sealed frames are bytes")
        return frame

    def hold(self) -> None:
        """Read nothing more; what the other side sends waits for whoever takes the connection over."""
        self._socket.transport.pause_reading()

    def detach(self) -> socket.socket | None:
        """The bare connection, for whoever goes on with it; here it is over. Both sides must know where the websocket
        ends, and this side must have read nothing behind that.

        Returns:
            None where it cannot be had: something waits to be sent, or more than a socket is needed to speak on it.
        """
        bare = self._socket.transport.get_extra_info("socket")
        if bare is None or not self.is_bare or self.unsent_bytes:
            return None
        own = socket.socket(fileno=os.dup(bare.fileno()))
        self.abort()  # closes its own descriptor only
        return own

    def allow(self, message_bytes: int) -> None:
        """Take messages up to this long from now on."""
        self._socket.protocol.max_message_size = message_bytes

    async def close(self, reason: str = "", code: int = NORMAL_CLOSURE) -> None:
        """Close politely, within `ChannelLimits.close_ms`; a second time does nothing."""
        cut = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
        await self._socket.close(code, cut)

    def abort(self) -> None:
        """Cut the connection now."""
        self._socket.transport.abort()

    def _lost(self, error: ConnectionClosed) -> ChannelLost:
        words = error.rcvd.reason[:_REASON_BYTES] if error.rcvd else ""
        return ChannelLost(f"the connection to {self.name} ended{f': {words!r}' if words else ''}")
