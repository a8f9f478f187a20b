"""Who may come in: how many at once, under which names, with which token.

A browser page on this machine can reach loopback too. So Host must be a name that this node goes by (DNS
rebinding), a foreign Origin is refused, and a node can ask for a token.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class RpcLimits:
    """Bounds of the server; bytes, counts, seconds."""

    body_bytes: int = 1_000_000
    batch_requests: int = 10
    connections: int = 900
    websockets: int = 100
    subscriptions_per_client: int = 5
    calls_per_websocket: int = 1_024
    write_timeout_s: float = 10.0
    ping_s: float = 27.0
    read_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Door:
    """Where the RPC listens and whom it lets in.

    Attributes:
        host: address to bind.
        port: 0 lets the system choose.
        token: must come as a bearer token when not empty.
        host_names: names that Host may have; None lets every name in (a public node behind a proxy).
        origins: Origin values of pages that may call.
    """

    host: str = "127.0.0.1"
    port: int = 0
    token: str = ""
    host_names: frozenset[str] | None = LOOPBACK_NAMES
    origins: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Door({self.host}:{self.port}, token={'yes' if self.token else 'no'})"


def guard(door: Door, limits: RpcLimits, connections: Callable[[], int]) -> Middleware:
    """The middleware that refuses before anything is read; `connections` counts those that are open."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if connections() > limits.connections:
            raise web.HTTPServiceUnavailable(text="too many connections", headers={"Connection": "close"})
        if door.host_names is not None and _host_name(request) not in door.host_names:
            raise web.HTTPForbidden(text="this node does not go by that host name")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in door.origins:
            raise web.HTTPForbidden(text="pages of that origin may not call this node")
        if door.token and not _has_token(request, door.token):
            raise web.HTTPUnauthorized(text="this node asks for a token")
        return await handler(request)

    return check


def _host_name(request: web.Request) -> str:
    try:
        return urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
    except ValueError:
        return ""


def _has_token(request: web.Request, token: str) -> bool:
    given = request.headers.get("Authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())
