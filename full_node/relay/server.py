"""The websockets around a relay: they feed its core and do what it says.

Whoever sends into a stream is read again only when the other side has room and the sender's pace allows it, so nothing
piles up here beyond `QUEUED_MESSAGES` and `WRITE_BUFFER_BYTES`, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Event
from websockets.typing import Subprotocol

from dllm_protocol.relay import CONTROL_BYTES_MAX, MESSAGE_BYTES_MAX, SUBPROTOCOL, CloseReason
from full_node.relay.core import Relay
from full_node.relay.effects import Close, Effect, Join, Send, Wait
from full_node.relay.limits import (
    MESSAGES_A_TURN,
    QUEUED_MESSAGES,
    READ_BYTES,
    UNTAKEN_PONGS_MAX,
    WRITE_BUFFER_BYTES,
    RelayLimits,
)

HANDSHAKES_PER_ADDRESS = 32
"""Connections of one network address that have not finished their HTTP request."""
TICK_MAX_S = 1.0
STOP_WAIT_S = 2.0
CLOSE_WAIT_S = 2.0
FORWARDED_BYTES_MAX = 1024
log = logging.getLogger(__name__)
_library_log = logging.getLogger(f"{__name__}.websocket")
# Who connects when is nobody's business: only what goes wrong is written down.
_library_log.setLevel(logging.ERROR)


class _Socket(ServerConnection):
    """A connection, and from whom it is."""

    remote = "unknown"
    waits_from = ""
    """The network address that it counts against until its HTTP request is there; empty afterwards."""
    is_joined = False
    is_closing = False
    untaken_pongs = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read little at once, so that nobody's small messages keep the others waiting."""
        super().connection_made(transport)
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # asyncio's own bound, 256 KiB if not said

    def process_event(self, event: Event) -> None:
        """The library answers every ping, whether or not the answers are taken: cut who only pings."""
        super().process_event(event)
        if self.paused and isinstance(event, Frame) and event.opcode is Opcode.PING:
            self.untaken_pongs += 1
            if self.untaken_pongs > UNTAKEN_PONGS_MAX:
                self.transport.abort()

    def resume_writing(self) -> None:
        """It takes what was sent again."""
        super().resume_writing()
        self.untaken_pongs = 0


class RelayServer:
    """Serves one relay."""

    def __init__(
        self,
        relay: Relay,
        limits: RelayLimits,
        *,
        behind_proxy: bool = False,
        now_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
    ) -> None:
        """Prepare; nothing listens before `start`.

        Args:
            behind_proxy: remotes are told by the last address in X-Forwarded-For.
        """
        self._relay = relay
        self._limits = limits
        self._behind_proxy = behind_proxy
        self._now_ms = now_ms
        self._server: Server | None = None
        self._sockets: dict[int, _Socket] = {}
        self._handshakes: Counter[str] = Counter()
        self._closing: set[asyncio.Task[None]] = set()
        self._closing_of: Counter[str] = Counter()
        """By remote: connections that the relay has closed and whose other end has not gone yet."""
        self._ticking: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError where the address cannot be had."""
        server, limits = self, self._limits

        class Gated(_Socket):
            """A connection that is counted from its first byte until it has asked for something."""

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                if not server._enter(self):
                    self.transport.abort()

            def connection_lost(self, exc: Exception | None) -> None:
                server._leave(self)
                super().connection_lost(exc)

        self._server = await serve(
            self._handle,
            host,
            port,
            origins=[None],  # a browser always names an origin, and no page may use this door
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            process_request=self._greet,
            compression=None,  # sealed bytes do not compress
            server_header=None,
            open_timeout=limits.handshake_ms / 1000,
            ping_interval=limits.ping_ms / 1000,
            ping_timeout=limits.stall_ms / 1000,  # a ping waits behind what was sent before it
            close_timeout=CLOSE_WAIT_S,
            max_size=CONTROL_BYTES_MAX,
            max_queue=QUEUED_MESSAGES,
            write_limit=WRITE_BUFFER_BYTES,
            create_connection=Gated,
            logger=_library_log,
        )
        self._ticking = asyncio.create_task(self._tick())
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Listen no more, tell everybody, and wait a little for their goodbyes."""
        if self._ticking is not None:
            self._ticking.cancel()
        if self._server is None:
            return
        self._server.close(close_connections=False)
        await self._do(self._relay.stop())
        if self._closing:
            await asyncio.wait(self._closing, timeout=STOP_WAIT_S)
        for socket in list(self._sockets.values()):
            socket.transport.abort()
        await self._server.wait_closed()

    # One connection

    async def _handle(self, connection: ServerConnection) -> None:
        socket = cast(_Socket, connection)
        self._leave(socket)  # it is counted by the relay from here on
        if self._closing_of[socket.remote] >= self._limits.connections_per_remote:
            # Whoever leaves closes unanswered would take the room of all others with ever more of them.
            socket.transport.abort()
            return
        peer, effects = self._relay.opened(socket.remote, self._now_ms())
        self._sockets[peer] = socket
        try:
            await self._do(effects)
            messages = 0
            async for message in socket:
                await self._do(self._relay.received(peer, message, self._now_ms()))
                messages += 1
                if messages % MESSAGES_A_TURN == 0:
                    # What has come already is had without waiting, and so without a turn for anybody else.
                    await asyncio.sleep(0)
        except ConnectionClosed:
            log.debug("a connection was lost")
        finally:
            in_order = socket.protocol.close_rcvd is not None and socket.protocol.close_rcvd.code == 1000
            effects = self._relay.closed(peer, in_order=in_order)
            del self._sockets[peer]
            if socket.is_closing:
                self._closing_of[socket.remote] -= 1
                if not self._closing_of[socket.remote]:
                    del self._closing_of[socket.remote]
            await self._do(effects)

    async def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            socket = self._sockets.get(effect.peer)
            if socket is None:
                continue
            match effect:
                case Send(peer, message):
                    await self._send(peer, socket, message)
                case Wait(_, wait_ms):
                    await _pause(socket, wait_ms)
                case Join():
                    socket.is_joined = True
                    socket.protocol.max_message_size = MESSAGE_BYTES_MAX
                case Close(_, reason):
                    if not socket.is_closing:
                        socket.is_closing = True
                        self._closing_of[socket.remote] += 1
                    task = asyncio.create_task(self._close(socket, reason))
                    self._closing.add(task)
                    task.add_done_callback(self._closing.discard)

    async def _send(self, peer: int, socket: _Socket, message: bytes | str) -> None:
        try:
            async with asyncio.timeout(self._limits.stall_ms / 1000):
                await socket.send(message)
        except TimeoutError:
            await self._do(self._relay.stalled(peer))
        except ConnectionClosed:
            log.debug("a message came too late for its receiver")  # its own task tells the relay

    async def _close(self, socket: _Socket, reason: CloseReason) -> None:
        """Close behind everything that was sent; whoever takes nothing is cut."""
        if reason is CloseReason.STALLED and socket.transport.get_write_buffer_size():
            socket.transport.abort()
            return
        if reason is not CloseReason.GOING_AWAY and socket.is_joined:
            # What was forwarded last may still be on its way to a slow reader.
            socket.close_timeout = self._limits.stall_ms / 1000
        if reason in _WORTH_A_LINE:
            log.warning("refused remote=%s reason=%s", socket.remote, reason.name)
        await socket.close(int(reason), reason.words)

    async def _tick(self) -> None:
        shortest_ms = min(self._limits.handshake_ms, self._limits.answer_ms, self._limits.idle_ms)
        while True:
            await asyncio.sleep(min(TICK_MAX_S, shortest_ms / 4000))
            await self._do(self._relay.tick(self._now_ms()))

    # Before a connection is one

    def _enter(self, socket: _Socket) -> bool:
        address = _group(_address(socket))
        waiting = sum(self._handshakes.values())
        allowed = self._limits.connections if self._behind_proxy else HANDSHAKES_PER_ADDRESS
        closing = len(self._sockets) - self._relay.connections
        if self._handshakes[address] >= allowed or waiting + closing >= self._limits.connections:
            log.warning("refused remote=%s reason=HANDSHAKES count=%d", address, self._handshakes[address])
            return False
        self._handshakes[address] += 1
        socket.waits_from = address
        return True

    def _leave(self, socket: _Socket) -> None:
        address, socket.waits_from = socket.waits_from, ""
        if address:
            self._handshakes[address] -= 1
            if not self._handshakes[address]:
                del self._handshakes[address]

    def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        """Who counts as one stranger: the TCP connection's other end, or whom the proxy names."""
        address = _address(connection)
        if self._behind_proxy:
            named = ",".join(request.headers.get_all("X-Forwarded-For"))[-FORWARDED_BYTES_MAX:]
            address = named.rpartition(",")[2].strip() or address
        cast(_Socket, connection).remote = _group(address)
        return None


_WORTH_A_LINE = frozenset({CloseReason.TOO_MANY, CloseReason.FULL, CloseReason.NOT_PROVED})


async def _pause(socket: _Socket, wait_ms: int) -> None:
    """Let time go by, unless the connection ends before."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_ms / 1000):
            await socket.wait_closed()


def _address(socket: ServerConnection) -> str:
    return str((socket.remote_address or ("unknown",))[0])


def _group(host: str) -> str:
    """An IPv4 address, or the /64 that one household gets."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False))
        return str(getattr(address, "ipv4_mapped", None) or address)
    return "unknown"
