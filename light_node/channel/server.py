"""Take channels from clients: a bounded number of them, none from a browser, each bounded in bytes and time."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from dllm_protocol.errors import DllmError
from light_node.bounded_websocket import BoundedConnection
from light_node.channel.limits import DEFAULT_LIMITS, QUEUED_FRAMES, WRITE_BUFFER_BYTES, ChannelLimits
from light_node.channel.link import POLICY_VIOLATION, Link

_log = logging.getLogger(__name__)
_library_log = logging.getLogger(f"{__name__}.websocket")
# Who connects when is nobody's business: only what goes wrong is written down.
_library_log.setLevel(logging.WARNING)

OnConnection = Callable[[Link], Awaitable[None]]
"""Serves one connection until it returns. A DllmError out of it closes this connection and nothing else."""
Pages = Mapping[str, Callable[[], bytes | None]]
"""What is said over plain HTTP, by path; None: not found."""


class ChannelServer:
    """A listening socket and the connections that it took."""

    def __init__(self, server: Server, gate: _Gate) -> None:
        self._server = server
        self._gate = gate

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """Connections that stand, those that have not said anything yet included."""
        return self._gate.total

    async def close(self) -> None:
        """Stop listening, close every connection, wait for their ends."""
        self._server.close()
        await self._server.wait_closed()


async def serve_channels(
    host: str,
    port: int,
    on_connection: OnConnection,
    *,
    limits: ChannelLimits = DEFAULT_LIMITS,
    tls: ssl.SSLContext | None = None,
    pages: Pages | None = None,
) -> ChannelServer:
    """Listen on ``host``:``port`` (0: any free one) and hand each connection to ``on_connection``.

    A connection takes messages of at most ``limits.hello_bytes`` until its handler calls `Link.allow`.

    Args:
        pages: answered to whoever asks for them instead of a websocket; public, and short.

    Raises:
        OSError: the address cannot be listened on.
    """
    gate = _Gate(limits)

    class GatedConnection(BoundedConnection, ServerConnection):
        """A connection that is counted from the first byte, before it has asked for anything."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            if not gate.enter(self):
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            gate.leave(self)
            super().connection_lost(exc)

    async def handle(connection: ServerConnection) -> None:
        link = Link(connection, limits, _name(connection))
        try:
            await on_connection(link)
        except DllmError as error:
            _log.debug("closed %s: %s", link.name, error.message)
            await link.close(error.message, POLICY_VIOLATION)

    def answer(_: ServerConnection, request: Request) -> Response | None:
        page = (pages or {}).get(request.path)
        return None if page is None else _response(page())

    ping_s = limits.ping_ms / 1000
    server = await serve(
        handle,
        host,
        port,
        process_request=answer,
        origins=[None],  # a browser always names an origin, and no page may use this door
        compression=None,  # sealed bytes do not compress
        server_header=None,
        open_timeout=limits.handshake_ms / 1000,
        ping_interval=ping_s,
        ping_timeout=ping_s,
        close_timeout=limits.close_ms / 1000,
        max_size=limits.hello_bytes,
        max_queue=QUEUED_FRAMES,
        write_limit=WRITE_BUFFER_BYTES,
        create_connection=GatedConnection,
        logger=_library_log,
        ssl=tls,
    )
    return ChannelServer(server, gate)


def _response(body: bytes | None) -> Response:
    headers = Headers({"Connection": "close", "Content-Length": str(len(body or b""))})
    if body is None:
        return Response(404, "Not Found", headers)
    headers["Content-Type"] = "application/octet-stream"
    return Response(200, "OK", headers, body)


class _Gate:
    """Counts connections, in all and by address."""

    def __init__(self, limits: ChannelLimits) -> None:
        self._limits = limits
        self._inside: dict[int, str] = {}
        self._by_group: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return len(self._inside)

    def enter(self, connection: ServerConnection) -> bool:
        """Whether there is room for one more from there; counts it where there is."""
        group = _group(connection)
        if self.total >= self._limits.connections:
            _log.warning("refused %s: %d connections stand already", group, self.total)
            return False
        if self._by_group[group] >= self._limits.connections_per_address:
            _log.warning("refused %s: it has %d connections already", group, self._by_group[group])
            return False
        self._inside[id(connection)] = group
        self._by_group[group] += 1
        return True

    def leave(self, connection: ServerConnection) -> None:
        """It is gone; one that was never let in does not count."""
        group = self._inside.pop(id(connection), None)
        if group is not None:
            self._by_group[group] -= 1
            if not self._by_group[group]:
                del self._by_group[group]


def _group(connection: ServerConnection) -> str:
    """Who counts as one stranger: an IPv4 address, or the /64 that one household gets."""
    host = str((connection.remote_address or ("unknown",))[0])
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(getattr(address, "ipv4_mapped", None) or address)


def _name(connection: ServerConnection) -> str:
    host, port = (*(connection.remote_address or ("unknown", 0)),)[:2]
    return f"{host}:{port}"
