"""The ABCI edge: CometBFT's four connections on a unix socket, each answered strictly in order.

Requests are answered where they arrive, on the event loop and one after the other: there is one state, and CometBFT
waits for most answers anyway. But no connection is worked off in one go: a thousand checks that wait on one must not
keep a proposal waiting on another. What is answered in one turn goes out in one write.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from dllm_protocol.errors import DllmError, MalformedBytes, UsageRefused
from full_node.consensus.abci import requests, responses
from full_node.consensus.abci.framing import MESSAGE_BYTES_MAX, Frames
from full_node.consensus.abci.requests import Request, decode_request
from full_node.consensus.abci.responses import Response, encode_response

log = logging.getLogger(__name__)
CONNECTIONS_MAX = 16
"""CometBFT opens four; a few more for a person who looks in."""
ANSWERS_A_TURN = 32
"""Checks take a tenth of a millisecond each, so that another connection waits a few milliseconds for its turn."""
WAITING_BYTES_MAX = 4 << 20
"""Unanswered requests of a connection; what is more stays with CometBFT."""
Handler = Callable[[Request], Response]


class SocketRefused(UsageRefused):
    """The unix socket cannot be made where it should be."""

    code = "E_ABCI_SOCKET"


class AbciServer:
    """Answers every connection to one socket by one handler."""

    def __init__(self, handler: Handler, path: Path, *, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        """`handler` answers all but echo and flush; what it raises ends the server, see `wait_failed`."""
        self._handler = handler
        self._path = path
        self._message_bytes_max = message_bytes_max
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._failed: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Listens. Raises SocketRefused."""
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        self._path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind(listening, self._path)
            self._server = await loop.create_unix_server(lambda: _Connection(self), sock=listening)
        except OSError as error:
            listening.close()
            raise SocketRefused(f"{self._path} cannot be listened on: {error}") from error

    async def wait_failed(self) -> None:
        """Returns never; raises what the handler raised."""
        assert self._failed is not None, "the server was not started"
        await asyncio.shield(self._failed)

    async def stop(self) -> None:
        """Closes the socket and every connection."""
        if self._server is not None:
            self._server.close()
            for connection in list(self._connections):
                connection.close()
            await self._server.wait_closed()
        if self._failed is not None and not self._failed.done():
            self._failed.cancel()
        self._path.unlink(missing_ok=True)

    def answer(self, message: bytes) -> bytes:
        """The bytes that answer one request. Raises whatever the handler raises, and MalformedBytes."""
        request = decode_request(message)
        if isinstance(request, requests.Flush):
            return _FLUSHED
        if isinstance(request, requests.Echo):
            return encode_response(responses.Echo(request.message))
        return encode_response(self._handler(request))

    @property
    def has_failed(self) -> bool:
        """Whether the handler raised: no connection asks it anything after that."""
        return self._failed is not None and self._failed.done()

    def _fail(self, error: BaseException) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)


class _Connection(asyncio.Protocol):
    """One connection: bytes in, answers out."""

    def __init__(self, server: AbciServer) -> None:
        self._server = server
        self._frames = Frames(server._message_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._turn: asyncio.Handle | None = None
        self._is_behind = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """CometBFT has connected."""
        assert isinstance(transport, asyncio.Transport)
        if len(self._server._connections) >= CONNECTIONS_MAX:
            log.warning("refused an ABCI connection: %d are open", CONNECTIONS_MAX)
            transport.abort()
            return
        self._transport = transport
        self._server._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """CometBFT has gone."""
        self._transport = None
        self._server._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Takes every request that is whole now, and begins to answer."""
        if self._transport is None:
            return
        try:
            messages = self._frames.feed(data)
        except MalformedBytes as error:
            self._refuse([], error)
            return
        self._waiting += messages
        self._waiting_bytes += sum(map(len, messages))
        self._read_while_there_is_room()
        if self._waiting and self._turn is None and not self._is_behind:
            self._take_turn()

    def _take_turn(self) -> None:
        """Answers some of what waits, and lets the other connections have theirs."""
        self._turn = None
        if self._transport is None:
            return
        if self._server.has_failed:
            self._waiting.clear()
            self.close()
            return
        answers: list[bytes] = []
        try:
            while self._waiting and len(answers) < ANSWERS_A_TURN:
                message = self._waiting.popleft()
                self._waiting_bytes -= len(message)
                answers.append(self._server.answer(message))
        except MalformedBytes as error:
            self._refuse(answers, error)
        # The state is not known to be whole after this: say so to CometBFT and end the node.
        except Exception as error:
            log.exception("the application failed")
            self._end(answers, error)
            self._server._fail(error)
        else:
            self._transport.write(b"".join(answers))
            self._read_while_there_is_room()
            self._take_another_turn()

    def _take_another_turn(self) -> None:
        if self._waiting and self._turn is None and not self._is_behind:
            self._turn = asyncio.get_running_loop().call_soon(self._take_turn)

    def _refuse(self, answers: list[bytes], error: MalformedBytes) -> None:
        log.error("the ABCI connection is not CometBFT's v0.38: %s", error.message)
        self._end(answers, error)

    def _read_while_there_is_room(self) -> None:
        """Reads on, unless what waits is much or the other side does not take its answers."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._is_behind or self._waiting_bytes > WAITING_BYTES_MAX:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The other side reads slower than it asks: ask it to wait."""
        self._is_behind = True
        self._read_while_there_is_room()

    def resume_writing(self) -> None:
        """The other side has caught up."""
        self._is_behind = False
        self._read_while_there_is_room()
        self._take_another_turn()

    def close(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()

    def _end(self, answers: list[bytes], error: Exception) -> None:
        assert self._transport is not None
        self._waiting.clear()
        words = error.message if isinstance(error, DllmError) else f"{type(error).__name__}: {error}"
        self._transport.write(b"".join([*answers, encode_response(responses.Fault(words))]))
        self._transport.close()


def _bind(listening: socket.socket, path: Path) -> None:
    """Binds a socket whose path may be longer than the 107 bytes that the system call takes."""
    if sys.platform != "linux":
        listening.bind(str(path))
    else:
        folder = os.open(path.parent, os.O_DIRECTORY | os.O_PATH)
        try:
            listening.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
    path.chmod(0o600)


_FLUSHED = encode_response(responses.Flush())
