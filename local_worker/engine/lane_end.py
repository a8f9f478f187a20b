"""The engine's end of a lane: a socket that blocks nobody, and what is sealed on it."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from typing import Final

from dllm_protocol.errors import ChannelRefused, MalformedBytes
from dllm_protocol.lane import KIND_HELLO, LaneMessage, LaneStream
from dllm_protocol.sealing import SealedStream
from local_worker.engine.lane_frames import NewLane

_READ_BYTES: Final = 1 << 15
_KEEPALIVE: Final = {
    "TCP_KEEPIDLE": 20,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 5_000,
}
"""In seconds, seconds, times, and milliseconds that bytes may go unacknowledged."""
MAX_UNSENT_BYTES: Final = 1 << 20
"""More than this the other side may not leave unread."""


class LaneBroken(Exception):
    """A lane is of no more use; says why. A connection may just end."""


class LaneFault(LaneBroken):
    """What came over it is what no honest stage sends."""


class LaneEnd:
    """One lane."""

    def __init__(self, connection: socket.socket, lane: NewLane) -> None:
        """Take a connection over; the side that dialled says hello.

        Raises:
            LaneBroken
        """
        self.number = lane.number
        self.form = lane.form
        """How hidden states go over it."""
        self.is_dialler = lane.is_dialler
        self.is_up = False
        """Whether the other side has said hello."""
        self._connection = connection
        connection.setblocking(False)
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            _set_up(connection)
        try:
            self._stream = LaneStream(SealedStream.taken_over(lane.state))
        except ValueError as error:
            raise LaneBroken(str(error)) from error
        self._unsent = bytearray()
        if self.is_dialler:
            self.send(KIND_HELLO, 0, 0, b"")

    @property
    def is_local(self) -> bool:
        """Whether the other engine is on this machine."""
        try:
            peer = self._connection.getpeername()
        except OSError:
            return False
        return isinstance(peer, str) or ip_address(str(peer[0]).partition("%")[0]).is_loopback

    def fileno(self) -> int:
        """Its descriptor, for whoever waits for it."""
        return self._connection.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether something waits until the other side reads."""
        return bool(self._unsent)

    def send(self, kind: int, request: int, position: int, body: bytes) -> None:
        """Send a message, as much of it as goes at once; `flush` sends the rest.

        Raises:
            LaneBroken
        """
        packed = self._stream.pack(kind, request, position, body)
        if self._unsent:
            if len(self._unsent) + len(packed) > MAX_UNSENT_BYTES:
                raise LaneBroken(f"the other side left {len(self._unsent)} bytes unread")
            self._unsent += packed
            return
        sent = self._write(packed)
        if sent < len(packed):
            self._unsent += packed[sent:]

    def flush(self) -> None:
        """Send what waits, as far as it goes.

        Raises:
            LaneBroken
        """
        del self._unsent[: self._write(self._unsent)]

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return self._connection.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise LaneBroken(_words(error)) from error

    def receive(self) -> list[LaneMessage]:
        """What came, less the other side's hello.

        Raises:
            LaneBroken: it ended, or what came is no lane's.
        """
        try:
            data = self._connection.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise LaneBroken(_words(error)) from error
        if not data:
            raise LaneBroken("the other side closed it")
        try:
            messages = self._stream.feed(data)
        except (ChannelRefused, MalformedBytes) as error:
            raise LaneFault(error.message) from error
        if not self.is_up and messages:
            if messages.pop(0).kind != KIND_HELLO:
                raise LaneFault("it did not begin with a hello")
            self.is_up = True
            if not self.is_dialler:
                self.send(KIND_HELLO, 0, 0, b"")
        return messages

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def _set_up(connection: socket.socket) -> None:
    """Rows leave at once, and a lane that leads nowhere any more is noticed."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # not every system has every one
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _words(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "an error") + f": {error.strerror or error}"
