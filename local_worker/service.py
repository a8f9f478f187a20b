"""A worker's life: load, register, serve, drain, claim, withdraw."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dllm_protocol.address import PROVIDER_SUFFIX, encode_address
from dllm_protocol.errors import DllmError
from dllm_protocol.exposition import Family
from dllm_protocol.model_manifest import Manifest
from dllm_protocol.session.provider import Standing
from light_node.channel.limits import DEFAULT_LIMITS, ChannelLimits
from light_node.metrics import MetricsServer
from local_worker.chain import Chain, wait_for_chain
from local_worker.engine_host import EngineHost, EngineOptions
from local_worker.keys import WorkerKeys
from local_worker.metrics import worker_families
from local_worker.model_service import LoadedModel, describe, registered_manifest
from local_worker.registration import OfferTerms, Registration
from local_worker.restored import last_refused_epoch
from local_worker.sequences import SequencePool
from local_worker.session_host import Workbench
from local_worker.settlement import ClaimPolicy, Settlement
from local_worker.stage_server import StageServer
from local_worker.status import RowMeter, Status, StatusFile
from local_worker.store import Store

_log = logging.getLogger(__name__)

LEDGER = "worker.db"
CHAIN_WAIT_S = 30.0
DRAIN_S = 10.0
FAREWELL_S = 15.0
"""Longest that claims and the withdrawal may take when the worker stops."""


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What a worker was told."""

    home: Path
    engine: EngineOptions
    host: str = "127.0.0.1"
    port: int = 0
    announced: tuple[str, ...] = ()
    """Endpoints for the chain; where empty, ``ws://host:port`` as listened on."""
    owner: bytes | None = None
    model_name: str | None = None
    chat_template: str | None = None
    may_register_model: bool = False
    offer: OfferTerms = field(default_factory=OfferTerms)
    claims: ClaimPolicy = field(default_factory=ClaimPolicy)
    limits: ChannelLimits = DEFAULT_LIMITS
    metrics: tuple[str, int] | None = None
    """Host and port where Prometheus' metrics are served; None = nowhere."""


class Service:
    """One worker process."""

    def __init__(self, options: ServiceOptions, keys: WorkerKeys, chain: Chain) -> None:
        self._options = options
        self._keys = keys
        self._chain = chain
        self.registration = Registration(chain, keys, options.owner)
        self._meter = RowMeter()
        self.status_file = StatusFile(options.home)
        self.status = Status(pid=os.getpid(), chain_id=chain.chain_id)
        if options.engine.remote is not None:
            self.status.backend, self.status.backend_url = "openai", options.engine.remote.url
        self.store = Store(options.home / LEDGER)
        self.engine = EngineHost(options.engine)
        self.pool = SequencePool(self.engine, time.monotonic)
        self.engine.on_new_engine = self.pool.forget_all
        self._draining = False
        self._server: StageServer | None = None
        self._settlement: Settlement | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._doors = AsyncExitStack()

    async def run(
        self,
        stop: asyncio.Event,
        stop_now: asyncio.Event,
        on_ready: Callable[[Status], None] = lambda _: None,
    ) -> None:
        """Serve until ``stop``, then leave in good order; ``stop_now`` skips what is left of that.

        Raises:
            DllmError: it could not start, or its model is refused now; the status file says why.
        """
        self._spawn(self.status_file.keep(self._current_status))
        try:
            await self._open_metrics()
            if await self._unless(stop, self.start()):
                on_ready(await self._current_status())
                await self._until_over(stop)
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
        loading = asyncio.create_task(self.engine.start())
        try:
            await wait_for_chain(self._chain, CHAIN_WAIT_S)
            engine = await loading
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        options = self._options
        loaded = await describe(options.engine.model_path, engine)
        manifest = await registered_manifest(
            self._chain,
            loaded,
            options.engine.model_path,
            name=options.model_name,
            chat_template=options.chat_template,
        )
        refused = await last_refused_epoch(options.home, self.store, self._chain)
        self._server = self._make_server(loaded, manifest, refused)
        port = await self._server.listen(options.host, options.port)
        endpoints = options.announced or (f"ws://{_in_url(options.host)}:{port}",)
        self._describe_status(manifest, endpoints)
        self.status.state = "registering"
        await self.registration.announce(
            manifest, endpoints, options.offer, may_register_model=options.may_register_model
        )
        self._settlement = self._make_settlement(self._server)
        self._spawn(self._settlement.run())
        self._spawn(self.registration.keep_alive())
        self.status.state = "serving"

    async def _open_metrics(self) -> None:
        if self._options.metrics is None:
            return
        server = MetricsServer(*self._options.metrics, self._families)
        self.status.metrics_address = await self._doors.enter_async_context(server)

    async def _families(self) -> Iterable[Family]:
        waiting = self.engine.current().waiting_calls if self.engine.alive else 0
        answering = self._server.answering if self._server is not None else 0
        return worker_families(await self._current_status(), self._meter.rows, waiting, answering)

    def _make_server(
        self, loaded: LoadedModel, manifest: Manifest, last_refused_epoch: int | None
    ) -> StageServer:
        bench = Workbench(
            engine=self.engine,
            pool=self.pool,
            vocabulary_bytes=loaded.vocabulary_bytes,
            context_rows=loaded.context_rows,
            store=self._remember,
            draining=lambda: self._draining,
            count_rows=self._meter.count,
        )
        return StageServer(
            chain=self._chain,
            keys=self._keys,
            provider=self.registration.provider,
            manifest=manifest,
            bench=bench,
            store=self.store,
            limits=self._options.limits,
            last_refused_epoch=last_refused_epoch,
        )

    def _make_settlement(self, server: StageServer) -> Settlement:
        return Settlement(
            chain=self._chain,
            store=self.store,
            provider=self.registration.provider,
            policy=self._options.claims,
            connected=lambda: server.connected,
            on_look=server.refresh,
            on_closed=self.pool.drop,
            now_ms=_now_ms,
        )

    @property
    def server_busy(self) -> bool:
        """Whether any session is in the middle of an answer."""
        return self._server is not None and self._server.busy

    async def refresh(self, session: bytes) -> None:
        """Prove a connected session's terms again now."""
        if self._server is not None:
            await self._server.refresh(session)

    async def _remember(self, session: bytes, standing: Standing) -> None:
        owed = 0
        if standing.voucher is not None:
            legs = standing.voucher.voucher.legs
            provider = self.registration.provider
            owed = next((leg.cumulative_udllm for leg in legs if leg.provider == provider), 0)
        await self.store.put(session, standing, owed, _now_ms())

    async def _leave(self) -> None:
        """Finish the answers under way, claim, withdraw; each within its time."""
        self._draining = True
        self.status.state = "draining"
        deadline = time.monotonic() + DRAIN_S
        while self.server_busy and time.monotonic() < deadline:  # noqa: ASYNC110
            # Many sessions end on their own; no single event says that all of them have.
            await asyncio.sleep(0.05)
        if self._server is not None:
            await self._server.close("this worker stops")
        try:
            async with asyncio.timeout(FAREWELL_S):
                if self._settlement is not None:
                    await self._settlement.settle_all()
                await self.registration.withdraw()
        except (DllmError, TimeoutError) as error:
            # The vouchers stay in the store: the next start claims them.
            _log.warning("left without settling everything: %s", error or "out of time")

    async def _end(self) -> None:
        await self._doors.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.close("this worker stops")
        await self.engine.close()
        if self.status.state != "failed":
            self.status.state = "stopped"
        self.status_file.write(await self._current_status())
        await self.store.close()
        await self._chain.close()

    async def _until_over(self, stop: asyncio.Event) -> None:
        """Wait for the wish to stop, or for a defect that ends the worker."""
        over = [asyncio.create_task(_wait(stop)), asyncio.create_task(self.engine.wait_refused())]
        done, _ = await asyncio.wait((*over, *self._tasks), return_when=asyncio.FIRST_COMPLETED)
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

    def _describe_status(self, manifest: Manifest, endpoints: tuple[str, ...]) -> None:
        prefix = self._chain.address_prefix
        self.status.owner = encode_address(prefix, self.registration.owner)
        self.status.operator = encode_address(prefix, self._keys.operator_address)
        self.status.provider = encode_address(prefix + PROVIDER_SUFFIX, self.registration.provider)
        self.status.model, self.status.layers = manifest.name, (0, manifest.layers)
        self.status.endpoints = endpoints

    async def _current_status(self) -> Status:
        totals = await self.store.totals()
        status = self.status
        status.sessions = len(self._server.connected) if self._server else 0
        status.rows_served = totals.rows_served
        status.tokens_per_s = self._meter.rows_per_s
        status.earned_unclaimed_udllm = totals.earned_unclaimed_udllm
        status.claimed_udllm = totals.claimed_udllm
        status.engine_restarts = self.engine.restarts
        return status


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
