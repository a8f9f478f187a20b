"""Who may come in: how many at once, under which names, from which pages, with the token.

A browser page on this machine can reach loopback too, and other people's processes may run here. So Host must be a name
that the proxy goes by (DNS rebinding), a foreign Origin is refused, and nobody is answered without the token.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
TOKEN_CHARACTERS_MIN = 32


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """Bounds of the server; bytes, counts, seconds."""

    body_bytes: int = 1_000_000
    batch_requests: int = 10
    connections: int = 200
    websockets: int = 20
    subscriptions_per_client: int = 5
    calls_per_websocket: int = 64
    calls_at_once: int = 64
    call_timeout_s: float = 60.0
    read_timeout_s: float = 10.0
    write_timeout_s: float = 10.0
    ping_s: float = 27.0


@dataclass(frozen=True, slots=True)
class ProxyDoor:
    """Where the proxy listens and whom it lets in."""

    token: str = field(repr=False)
    """Must come with every request: as a bearer token, or as the password of Basic authorization."""
    host: str = "127.0.0.1"
    """Address to bind."""
    port: int = 0
    """0 lets the system choose."""
    host_names: frozenset[str] = LOOPBACK_NAMES
    """Names that Host may have."""
    origins: frozenset[str] = frozenset()
    """Origin values of pages that may call."""

    def __post_init__(self) -> None:
        if len(self.token) < TOKEN_CHARACTERS_MIN or not self.token.isascii():
            raise ValueError(
                f"the proxy's token has {len(self.token)} characters, at least {TOKEN_CHARACTERS_MIN}"
            )


def guard(door: ProxyDoor, limits: ProxyLimits, connections: Callable[[], int]) -> Middleware:
    """The middleware that refuses before anything is read; `connections` counts those that are open."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if connections() > limits.connections:
            raise web.HTTPServiceUnavailable(text="too many connections", headers={"Connection": "close"})
        if _host_name(request) not in door.host_names:
            raise web.HTTPForbidden(text="the proxy does not go by that host name")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in door.origins:
            raise web.HTTPForbidden(text="pages of that origin may not call the proxy")
        if not _has_token(request, door.token):
            raise web.HTTPUnauthorized(text="the proxy asks for its token: Authorization: Bearer TOKEN")
        return await handler(request)

    return check


def _host_name(request: web.Request) -> str:
    try:
        return urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
    except ValueError:
        return ""


def _has_token(request: web.Request, token: str) -> bool:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    if kind == "Basic":
        # The form in which programs send what stands in http://name:TOKEN@host.
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    elif kind != "Bearer":
        return False
    # Header bytes that are no text arrive as lone surrogates.
    return hmac.compare_digest(given.encode(errors="surrogateescape"), token.encode())
