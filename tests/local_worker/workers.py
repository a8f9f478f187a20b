"""Starts a worker's service inside a test: real engine process, real sockets, a chain in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from light_node.channel.limits import ChannelLimits
from local_worker.engine_host import EngineOptions
from local_worker.keys import create_keys, key_file, load_keys
from local_worker.remote_engine.options import RemoteServer
from local_worker.service import Service, ServiceOptions
from local_worker.settlement import ClaimPolicy
from tests.local_worker.doubles import ChainDouble

LIMITS = ChannelLimits(handshake_ms=1_000, write_ms=1_000, close_ms=300)
CONTEXT_ROWS = 512


@dataclass
class RunningWorker:
    """A service that serves."""

    service: Service
    chain: ChainDouble
    provider: bytes
    port: int
    stop: asyncio.Event
    task: asyncio.Task[None]


@asynccontextmanager
async def running_worker(
    home: Path,
    model: Path,
    chain: ChainDouble | None = None,
    *,
    sequences: int = 2,
    claims: ClaimPolicy | None = None,
    remote: RemoteServer | None = None,
) -> AsyncIterator[RunningWorker]:
    """Run a worker in ``home`` until the block ends; then it leaves in good order."""
    keys = load_keys(home) if key_file(home).exists() else create_keys(home)
    chain = chain or ChainDouble(keys.operator_address)
    options = ServiceOptions(
        home=home,
        engine=EngineOptions(model, home / "engine.log", CONTEXT_ROWS, sequences, 1, remote),
        may_register_model=True,
        claims=claims or ClaimPolicy(),
        limits=LIMITS,
    )
    service = Service(options, keys, chain)
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(service.run(stop, asyncio.Event(), lambda _: ready.set()))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        task.result()
    port = int(service.status.endpoints[0].rpartition(":")[2])
    provider = service.registration.provider
    try:
        yield RunningWorker(service, chain, provider, port, stop, task)
    finally:
        stop.set()
        await task
