"""GET /metrics, on an address of its own: loopback unless told otherwise, Host and Origin checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import aiohttp
from aiohttp import web

from dllm_protocol.errors import UsageRefused
from dllm_protocol.exposition import CONTENT_TYPE, Family, exposition, gauge
from full_node.rpc.guard import Door, RpcLimits, guard

STOP_WAIT_S = 1.0
PASSED_ON_BYTES_MAX = 4 << 20
PASSED_ON_TIMEOUT_S = 3.0


class CannotListen(UsageRefused):
    """The metrics' address is taken or not this machine's."""

    code = "E_LISTEN"


_LIMITS = RpcLimits(body_bytes=1024, connections=16)

Collect = Callable[[], Awaitable[Iterable[Family]]]


class MetricsServer:
    """Answers a monitor.

    Args:
        door: where to listen and whom to let in.
        collect: gathers the families at the moment of asking.
        passed_on: address of another program's metrics whose lines follow ours; empty = none.
    """

    def __init__(self, door: Door, collect: Collect, *, passed_on: str = "") -> None:
        self._door = door
        self._collect = collect
        self._passed_on = passed_on
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> str:
        """As `start`. Raises CannotListen."""
        try:
            return await self.start()
        except OSError as error:
            await self.stop()
            raise CannotListen(
                f"cannot listen on {self._door.host}:{self._door.port}: {error.strerror or error}",
                hint="give another --metrics-listen; port 0 lets the system choose",
            ) from error

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> str:
        """Begins to listen; returns `host:port`. Raises OSError when the address is taken."""
        application = web.Application(
            client_max_size=_LIMITS.body_bytes, middlewares=[guard(self._door, _LIMITS, self._connections)]
        )
        application.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=STOP_WAIT_S)
        await runner.setup()
        self._runner = runner
        await web.TCPSite(runner, self._door.host, self._door.port).start()
        host, port = runner.addresses[0][:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def stop(self) -> None:
        """Closes every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _connections(self) -> int:
        server = self._runner.server if self._runner is not None else None
        return len(server.connections) if server is not None else 0

    async def _metrics(self, _request: web.Request) -> web.Response:
        families = list(await self._collect())
        others = ""
        if self._passed_on:
            others = await self._fetched()
            said = "Whether CometBFT gave its own metrics, which then follow: 1 or 0."
            families.append(gauge("dllm_node_cometbft_metrics_up", said, 1 if others else 0))
        return web.Response(
            body=(exposition(families) + others).encode(), headers={"Content-Type": CONTENT_TYPE}
        )

    async def _fetched(self) -> str:
        """The other program's lines; nothing where it does not answer."""
        timeout = aiohttp.ClientTimeout(total=PASSED_ON_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as client,
                client.get(f"http://{self._passed_on}/metrics") as answer,
            ):
                body = await answer.content.read(PASSED_ON_BYTES_MAX + 1)
                while len(body) <= PASSED_ON_BYTES_MAX and (more := await answer.content.read(1 << 16)):
                    body += more
        except (aiohttp.ClientError, TimeoutError):
            return ""
        return body.decode("utf-8", "replace") if len(body) <= PASSED_ON_BYTES_MAX else ""
