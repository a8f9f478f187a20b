"""Starts a worker's service inside a test: real engine process, real sockets, a chain in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from light_node.channel.limits import ChannelLimits
from light_node.relay.urls import RelayUrl
from local_worker.engine_host import EngineOptions
from local_worker.keys import create_keys, key_file, load_keys
from local_worker.piece_exchange import Exchange
from local_worker.remote_engine.options import RemoteServer
from local_worker.service import Service, ServiceOptions
from local_worker.settlement import ClaimPolicy
from local_worker.slice_service import Slice, SliceOptions, slice_home
from tests.local_worker.doubles import ChainDouble

LIMITS = ChannelLimits(handshake_ms=60_000, write_ms=60_000, close_ms=300)
"""Of channels that a busy machine must not end."""
IMPATIENT = replace(LIMITS, handshake_ms=3_000)
"""For tests of strangers who never say who they are."""
CONTEXT_ROWS = 512


@dataclass
class RunningWorker:
    """A service that serves."""

    service: Service
    chain: ChainDouble
    provider: bytes
    port: int
    """Where it listens; 0 beside a relay."""
    stop: asyncio.Event
    task: asyncio.Task[None]

    @property
    def slice(self) -> Slice:
        """The one slice that it serves."""
        (one,) = self.service.slices
        return one


@asynccontextmanager
async def running_worker(
    home: Path,
    model: Path,
    chain: ChainDouble | None = None,
    *,
    package: Path | None = None,
    layers: Sequence[str] = (),
    most_layers: int | None = None,
    sequences: int = 2,
    claims: ClaimPolicy | None = None,
    remote: RemoteServer | None = None,
    relays: tuple[RelayUrl, ...] = (),
    host: str | None = "127.0.0.1",
    name: str | None = None,
    exchange: Exchange | None = None,
    limits: ChannelLimits = LIMITS,
) -> AsyncIterator[RunningWorker]:
    """Run a worker in ``home`` until the block ends; then it leaves in good order.

    Args:
        package: serve this instead of ``model``.
        layers: a slice for each, of the package, or of the model cut into one.
        exchange: where missing pieces of the package come from, and where those that are there are served.
    """
    slices = tuple(SliceOptions(text, host, most_layers=most_layers) for text in layers or [""])
    homes = [slice_home(home, number) for number in range(1, len(slices) + 1)]
    keys = [load_keys(one) if key_file(one).exists() else create_keys(one) for one in homes]
    chain = chain or ChainDouble(keys[0].operator_address)
    options = ServiceOptions(
        home=home,
        engine=EngineOptions(model, home / "engine.log", CONTEXT_ROWS, sequences, 1, remote=remote),
        package=package,
        slices=slices,
        may_register_model=True,
        claims=claims or ClaimPolicy(),
        limits=limits,
        relays=relays,
        model_name=name,
        exchange=exchange or Exchange(),
    )
    # One chain, the records are shared; each operator sends what it sends as itself.
    others = [replace(chain, operator=own.operator_address) for own in keys[1:]]
    service = Service(options, keys, [chain, *others])
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(service.run(stop, asyncio.Event(), lambda _: ready.set()))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        task.result()
    port = int(service.status.endpoints[0].rpartition(":")[2]) if host and not relays else 0
    provider = service._parts[0].registration.provider
    try:
        yield RunningWorker(service, chain, provider, port, stop, task)
    finally:
        stop.set()
        await task
