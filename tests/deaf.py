"""A party that only pings: it takes no answers, and a websocket library writes one for each ping."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from websockets.asyncio.server import ServerConnection

BATCH = 1_000
BATCHES = 200
"""25 MB of pings: more than the kernel holds, less than a test minds where nobody cuts it."""
_PING = bytes((0x89, 125)) + b"p" * 125
_MASKED_PING = bytes((0x89, 0x80 | 125)) + bytes(4) + b"p" * 125
_REQUEST = (
    "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)


async def ping_server(host: str, port: int, *, subprotocol: str = "") -> int:
    """Connect and ping; how many batches the server took until it cut the connection."""
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.setblocking(False)
    await asyncio.get_running_loop().sock_connect(deaf, (host, port))
    reader, writer = await asyncio.open_connection(sock=deaf, limit=1 << 10)
    offered = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    writer.write(f"{_REQUEST}{offered}\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport reads, too
    taken = 0
    with contextlib.suppress(ConnectionError):  # it was cut
        while taken < BATCHES:
            writer.write(_MASKED_PING * BATCH)
            await writer.drain()
            taken += 1
    writer.transport.abort()
    return taken


async def ping_client(client: ServerConnection) -> int:
    """As `ping_server`, from the other side."""
    client.transport.pause_reading()
    taken = 0
    with contextlib.suppress(ConnectionError):  # it was cut
        while taken < BATCHES and not client.transport.is_closing():
            client.transport.write(_PING * BATCH)
            await client.drain()
            taken += 1
    return taken
