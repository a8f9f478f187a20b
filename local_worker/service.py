"""A worker's life: load, register, serve, drain, claim, withdraw; for one slice of a model or for several."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dllm_protocol.errors import DllmError, UsageRefused
from dllm_protocol.exposition import Family
from light_node.channel.limits import DEFAULT_LIMITS, ChannelLimits
from light_node.metrics import MetricsServer
from light_node.relay.urls import RelayUrl
from local_worker.auto_slice import AutoSlice, with_port
from local_worker.chain import Chain
from local_worker.engine_host import EngineOptions
from local_worker.keys import WorkerKeys
from local_worker.layer_range import AUTO_LAYERS
from local_worker.metrics import worker_families
from local_worker.piece_exchange import Exchange, PackageSeeding
from local_worker.restored import mark_slices
from local_worker.self_test import SelfTestFailed
from local_worker.settlement import ClaimPolicy
from local_worker.slice_models import PackagedLayers, SharedPackage, SliceModel, WholeFile
from local_worker.slice_service import MAX_SLICES, Slice, SliceOptions, SliceSetting, slice_home
from local_worker.status import Status, StatusFile

_log = logging.getLogger(__name__)

DRAIN_S = 10.0
FAREWELL_S = 15.0
"""Longest that claims and the withdrawal may take when the worker stops."""


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What a worker was told."""

    home: Path
    engine: EngineOptions
    """How engines are started; its model is served, whole or in layers, unless there is a package."""
    package: Path | None = None
    """Layers are taken from this package; None: where layers are named, the model is cut into one first."""
    slices: tuple[SliceOptions, ...] = field(default_factory=lambda: (SliceOptions(),))
    """Each has a provider of its own."""
    owner: bytes | None = None
    model_name: str | None = None
    chat_template: str | None = None
    may_register_model: bool = False
    claims: ClaimPolicy = field(default_factory=ClaimPolicy)
    limits: ChannelLimits = DEFAULT_LIMITS
    relays: tuple[RelayUrl, ...] = ()
    """Through which every slice is reached."""
    exchange: Exchange = field(default_factory=Exchange)
    """Where pieces that are missing come from, and where those that are there are served."""
    metrics: tuple[str, int] | None = None
    """Host and port where Prometheus' metrics are served; None = nowhere."""

    @property
    def in_pieces(self) -> bool:
        """Whether slices are assembled from pieces, instead of a file being served as it is."""
        return self.package is not None or any(one.layers for one in self.slices)


class Service:
    """One worker process."""

    def __init__(self, options: ServiceOptions, keys: Sequence[WorkerKeys], chains: Sequence[Chain]) -> None:
        """Prepare.

        Args:
            keys: one set a slice.
            chains: the chain as each slice's operator sees it.

        Raises:
            UsageRefused: more slices than one worker can have.
        """
        if not 1 <= len(options.slices) <= MAX_SLICES:
            raise UsageRefused(f"{len(options.slices)} slices, a worker has 1 to {MAX_SLICES}")
        self._options = options
        self.status_file = StatusFile(options.home)
        self.status = Status(pid=os.getpid(), chain_id=chains[0].chain_id)
        if options.engine.remote is not None:
            self.status.backend, self.status.backend_url = "openai", options.engine.remote.url
        mark_slices(options.home)
        self._seeding: PackageSeeding | None = None
        setting = SliceSetting(
            engine=replace(options.engine, memory_share=len(options.slices)),
            owner=options.owner,
            may_register_model=options.may_register_model,
            claims=options.claims,
            limits=options.limits,
            relays=options.relays,
            seeding_port=lambda: self._seeding.port if self._seeding is not None else 0,
        )
        homes = [slice_home(options.home, number) for number in range(1, len(keys) + 1)]
        self._package = _package(options)
        self._parts: tuple[Slice | AutoSlice, ...] = tuple(
            AutoSlice(home, with_port(one), setting, model, own_keys, chain)
            if isinstance(model, SharedPackage)
            else Slice(home, one, setting, model, own_keys, chain)
            for home, one, model, own_keys, chain in zip(
                homes, options.slices, _models(options, self._package), keys, chains, strict=True
            )
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._doors = AsyncExitStack()

    @property
    def slices(self) -> tuple[Slice, ...]:
        """Those whose layers were named."""
        return tuple(one for one in self._parts if isinstance(one, Slice))

    async def run(
        self,
        stop: asyncio.Event,
        stop_now: asyncio.Event,
        on_ready: Callable[[Status], None] = lambda _: None,
    ) -> None:
        """Serve until ``stop``, then leave in good order; ``stop_now`` skips what is left of that.

        Raises:
            DllmError: it could not start, its model is refused now, or fails its self-test; the status file says why.
        """
        self._spawn(self.status_file.keep(self._current_status))
        try:
            await self._open_metrics()
            if await self._unless(stop, self.start()):
                now = await self._current_status()
                # Whoever hears that it serves may look into its file at once.
                self.status_file.write(now)
                on_ready(now)
                try:
                    await self._until_over(stop)
                except SelfTestFailed as failure:
                    self.status.problem = failure.message
                    await self._unless(stop_now, self._leave(at_once=True))
                    raise
                await self._unless(stop_now, self._leave())
        except DllmError as error:
            self.status.state, self.status.problem = "failed", error.message
            raise
        finally:
            await self._end()

    async def start(self) -> None:
        """Load the model, prove the chain, open the door, register: then the worker serves.

        Raises:
            ModelRefused, EngineGone, ModelMismatch, NotRegistered, TransactionRefused, …
        """
        self.status.state = "loading"
        await _together([one.load() for one in self._parts])
        self.status.state = "registering"
        # One after another: the first registers a model that is new, the others find it.
        for one in self._parts:
            await one.offer()
        self.status.state = "serving"
        self._begin_seeding()

    def _begin_seeding(self) -> None:
        """Serve the package's pieces from now on, where that is wished."""
        at = self._options.exchange.seed_at
        if at is None or self._package is None:
            return
        self._seeding = PackageSeeding(self._package.folder, at, self._options.exchange.limits)
        self._spawn(self._seeding.run())

    async def _open_metrics(self) -> None:
        if self._options.metrics is None:
            return
        server = MetricsServer(*self._options.metrics, self._families)
        self.status.metrics_address = await self._doors.enter_async_context(server)

    async def _families(self) -> Iterable[Family]:
        return worker_families(
            await self._current_status(),
            rows=sum(one.meter.rows for one in self._parts),
            waiting_calls=sum(one.waiting_calls for one in self._parts),
            answering=sum(one.answering for one in self._parts),
        )

    async def _leave(self, *, at_once: bool = False) -> None:
        """Finish the answers under way, claim, withdraw; each within its time.

        Args:
            at_once: answer nothing more, because what is computed is wrong.
        """
        self.status.state = "draining"
        for one in self._parts:
            one.drain()
        deadline = time.monotonic() + (0.0 if at_once else DRAIN_S)
        while any(one.busy for one in self._parts) and time.monotonic() < deadline:  # noqa: ASYNC110
            # Many sessions end on their own; no single event says that all of them have.
            await asyncio.sleep(0.05)
        await asyncio.gather(*(one.close_door() for one in self._parts))
        await asyncio.gather(*(self._farewell(one) for one in self._parts))

    async def _farewell(self, one: Slice | AutoSlice) -> None:
        try:
            async with asyncio.timeout(FAREWELL_S):
                await one.farewell()
        except (DllmError, TimeoutError) as error:
            # The vouchers stay in the store: the next start claims them.
            _log.warning("left without settling everything: %s", error or "out of time")

    async def _end(self) -> None:
        await self._doors.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(one.end() for one in self._parts))
        if self.status.state != "failed":
            self.status.state = "stopped"
        self.status_file.write(await self._current_status())
        await asyncio.gather(*(one.close() for one in self._parts))

    async def _until_over(self, stop: asyncio.Event) -> None:
        """Wait for the wish to stop, or for a defect that ends the worker."""
        over = [asyncio.create_task(_wait(stop))]
        over += [asyncio.create_task(one.wait_refused()) for one in self._parts]
        running = [*self._tasks, *(task for one in self._parts for task in one.tasks)]
        done, _ = await asyncio.wait((*over, *running), return_when=asyncio.FIRST_COMPLETED)
        for task in over:
            task.cancel()
        for task in done:
            task.result()

    async def _unless(self, event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
        """Do the work unless the event comes first; whether it was done."""
        doing, waiting = asyncio.create_task(work), asyncio.create_task(event.wait())
        try:
            await asyncio.wait((doing, waiting), return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                return False
            doing.result()
            return True
        finally:
            for task in (doing, waiting):
                task.cancel()
            await asyncio.gather(doing, waiting, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _current_status(self) -> Status:
        self.status.take(await asyncio.gather(*(one.status() for one in self._parts)))
        if self._seeding is not None:
            self.status.seeds_at, self.status.seeding_problem = self._seeding.seeds_at, self._seeding.problem
        return self.status


def _package(options: ServiceOptions) -> SharedPackage | None:
    """What all slices are built from; None where a file is served as it is."""
    if not options.in_pieces:
        return None
    return SharedPackage(
        options.package,
        None if options.package is not None else options.engine.model_path,
        options.home,
        options.model_name,
        options.chat_template,
        options.exchange,
    )


def _models(options: ServiceOptions, package: SharedPackage | None) -> Sequence[SliceModel | SharedPackage]:
    """Where each slice's model comes from; a package where the layers are still to be chosen."""
    if package is None:
        whole = WholeFile(options.engine.model_path, options.model_name, options.chat_template)
        return [whole] * len(options.slices)
    return [
        package
        if one.layers == AUTO_LAYERS
        else PackagedLayers(package, one.layers or ":", slice_home(options.home, number))
        for number, one in enumerate(options.slices, start=1)
    ]


async def _together(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """All of it, or the first failure, with nothing of the rest left running."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
