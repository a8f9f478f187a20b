"""`dllm light proxy`: the light node's answers for other programs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from dllm_chat.cli.long_running import announce, ended, told_to_stop
from dllm_chat.cli.output import Report, fields, progress
from dllm_chat.cli.service import settings
from dllm_chat.network.addresses import is_loopback_host
from dllm_chat.network.open_light import OpenLight, open_light
from dllm_chat.paths import make_private_folder
from dllm_chat.version import VERSION
from dllm_protocol.errors import DllmError, UsageRefused
from dllm_protocol.exposition import Family
from light_node.log_file import log_to
from light_node.metrics import MetricsServer, light_families
from light_node.proxy.context import ProxyContext
from light_node.proxy.guard import ProxyDoor
from light_node.proxy.proving import Proving
from light_node.proxy.server import ProxyServer
from light_node.proxy.token import read_or_make_token
from light_node.proxy.upstream import UpstreamSource
from light_node.queries import ProvedReads

TOKEN_FILE = "light_proxy.token"  # noqa: S105 - the name of a file, not a secret
ORIGINS_MAX = 16
LOOK_S = 60.0
"""How often the proxy syncs while nobody calls, so that trust does not grow too old under it."""


async def serve(listen: str, token_file: Path | None, origins: list[str], metrics_listen: str = "") -> Report:
    """Serve until told to stop."""
    host, port = _place(listen)
    metrics_place = _place(metrics_listen) if metrics_listen else None
    if len(origins) > ORIGINS_MAX:
        raise UsageRefused(f"{len(origins)} origins are given, at most {ORIGINS_MAX}")
    paths, config = settings()
    file = token_file or make_private_folder(paths.state) / TOKEN_FILE
    log_to(make_private_folder(paths.logs) / "light-proxy.log", level=config.log_level)
    door = ProxyDoor(read_or_make_token(file), host, port, origins=frozenset(origins))
    async with (
        told_to_stop() as told,
        open_light(paths, config, progress, make_source=UpstreamSource) as light,
        contextlib.AsyncExitStack() as doors,
    ):
        context = _context(light)
        metrics = ""
        if metrics_place is not None:
            numbers = MetricsServer(*metrics_place, partial(_families, light, context))
            metrics = await doors.enter_async_context(numbers)
        server = ProxyServer(context, door)
        address = await _started(server, listen)
        try:
            await _sync(light)
            announce(_ready(light, address, file, metrics))
            while not told.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await told.wait()
                        break
                await _sync(light)
        finally:
            await server.stop()
    raise ended()


async def _families(light: OpenLight, context: ProxyContext) -> Iterable[Family]:
    return light_families(light.bundle.chain_id, light.client.status(), context.requests, context.refusals)


async def _sync(light: OpenLight) -> None:
    """Look at the chain; what is wrong is told to whoever calls, and does not end the proxy."""
    try:
        await light.client.sync()
    except DllmError as error:
        progress(f"not verified: {error.message}")


def _context(light: OpenLight) -> ProxyContext:
    reads = ProvedReads(light.client)
    return ProxyContext(Proving(light.client), reads, light.bundle.genesis, light.store, VERSION)


async def _started(server: ProxyServer, listen: str) -> str:
    try:
        return await server.start()
    except OSError as error:
        raise UsageRefused(
            f"cannot listen at {listen}: {error.strerror}",
            hint="another program does: choose a port with --listen",
        ) from error


def _ready(light: OpenLight, address: str, file: Path, metrics: str) -> Report:
    fresh = light.client.status()
    data = {
        "address": address,
        "url": f"http://{address}",
        "websocket": f"ws://{address}/websocket",
        "token_file": str(file),
        "metrics_address": metrics,
        "chain_id": light.bundle.chain_id,
        "height": fresh.height,
        "hash": fresh.hash.hex().upper(),
        "state": str(fresh.state),
    }
    shown = {
        "proxy": f"{data['url']} and {data['websocket']}",
        "token": f"the line in {file}",
        "network": light.bundle.chain_id,
        "verified": f"height {fresh.height}\n{data['hash']}" if fresh.height else "nothing yet",
        "stop": "Ctrl-C",
    }
    return Report(data, fields(shown))


def _place(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise UsageRefused(f"--listen is HOST:PORT, got {listen[:80]!r}")
    if not is_loopback_host(host):
        raise UsageRefused(
            f"{host} is not this machine: the proxy serves only programs here",
            hint="others run their own light node; its answers are worth more than a stranger's proxy",
        )
    return host, int(port)
