"""GET /metrics for programs beside a light node, and the light node's own numbers; loopback only, Host checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from dllm_protocol.errors import UsageRefused
from dllm_protocol.exposition import (
    CONTENT_TYPE,
    Family,
    LabelledCounter,
    MetricKind,
    Sample,
    exposition,
    gauge,
)
from light_node.freshness import Freshness, TrustStatus

NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
CONNECTIONS_MAX = 16
STOP_WAIT_S = 1.0

Collect = Callable[[], Awaitable[Iterable[Family]]]


class MetricsRefused(UsageRefused):
    """An address where metrics cannot, or shall not, be served."""

    code = "E_LISTEN"


class MetricsServer:
    """Answers a monitor on this machine; an ``async with`` gives the address as ``host:port``.

    Args:
        host: a loopback address: what a worker earns, and what a client asks, is nobody else's business.
        port: 0 lets the system choose.
        collect: gathers the families at the moment of asking.
    """

    def __init__(self, host: str, port: int, collect: Collect) -> None:
        self._host, self._port = host, port
        self._collect = collect
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> str:
        """Begin to listen. Raises MetricsRefused."""
        if not _is_loopback(self._host):
            raise MetricsRefused(
                f"metrics are served on this machine alone, {self._host} is not loopback",
                hint="let the monitor's agent run here, or forward the port to it",
            )
        application = web.Application(client_max_size=1024, middlewares=[self._guard])
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=STOP_WAIT_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise MetricsRefused(
                f"cannot listen on {self._host}:{self._port}: {error.strerror or error}",
                hint="give another --metrics-listen; port 0 lets the system choose",
            ) from error
        host, port = self._runner.addresses[0][:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        server = self._runner.server if self._runner is not None else None
        if server is not None and len(server.connections) > CONNECTIONS_MAX:
            raise web.HTTPServiceUnavailable(text="too many connections")
        if _host_name(request) not in NAMES or request.headers.get("Origin") is not None:
            raise web.HTTPForbidden(text="metrics are for a monitor on this machine, not for pages")
        return await handler(request)

    async def _metrics(self, _request: web.Request) -> web.Response:
        body = exposition(await self._collect()).encode()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


def light_families(
    chain_id: str, fresh: Freshness, requests: LabelledCounter, refusals: LabelledCounter
) -> Iterator[Family]:
    """Every family of a light node's proxy."""
    states = tuple(
        Sample(float(fresh.state is state), {"chain_id": chain_id, "state": str(state)})
        for state in TrustStatus
    )
    yield Family("dllm_light_state", MetricKind.GAUGE, "1 for the state of trust that holds, else 0.", states)
    yield gauge("dllm_light_verified_height", "Height of the newest verified header; 0 = none.", fresh.height)
    yield gauge(
        "dllm_light_lag_blocks", "How far the newest height that a node claimed lies ahead.", fresh.lag_blocks
    )
    yield gauge("dllm_light_root_age_seconds", "Age of the newest verified header.", fresh.root_age_s)
    yield gauge(
        "dllm_light_root_expires_seconds",
        "Until it is too old to build upon; negative = it is.",
        fresh.expires_in_s,
    )
    yield requests.family(
        "dllm_light_requests_total", "Calls to the proxy by method and outcome: ok or refused."
    )
    yield refusals.family("dllm_light_refusals_total", "What was refused, by error code.")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(request: web.Request) -> str:
    try:
        return urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
    except ValueError:
        return ""
