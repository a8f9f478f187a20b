"""One slice of one provider: its engine, its door, its place on chain, its ledger and its claims."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from dllm_protocol.address import PROVIDER_SUFFIX, encode_address
from dllm_protocol.session.provider import Standing
from light_node.channel.limits import DEFAULT_LIMITS, ChannelLimits
from light_node.channel.link import Link
from light_node.relay.urls import RelayUrl
from local_worker.capacity import reserve_of
from local_worker.chain import Chain, wait_for_chain
from local_worker.engine.interface import ServingEngine
from local_worker.engine_host import EngineHost, EngineOptions
from local_worker.keys import WorkerKeys
from local_worker.memory import MemoryWatch, free_memory
from local_worker.registration import OfferTerms, Registration
from local_worker.relays import OPEN, RelayPlaces, own_endpoints
from local_worker.restored import SLICES_FOLDER, last_refused_epoch
from local_worker.row_room import RowMemory
from local_worker.self_test import SelfTester
from local_worker.sequences import SequencePool
from local_worker.settlement import ClaimPolicy, Settlement
from local_worker.slice_models import CHAIN_WAIT_S, Served, SliceModel
from local_worker.stage_server import SeedingPort, StageServer
from local_worker.status import RowMeter, SliceStatus
from local_worker.store import Store
from local_worker.workbench import Workbench

_log = logging.getLogger(__name__)

LEDGER: Final = "worker.db"
MAX_SLICES: Final = 16
"""Slices of one worker: as many as a route can have stages."""


def slice_home(home: Path, number: int) -> Path:
    """Where a worker's slice keeps its keys, its ledger and its chunk: the first one in the worker's own home."""
    return home if number == 1 else home / SLICES_FOLDER / str(number)


@dataclass(frozen=True, slots=True)
class SliceOptions:
    """What one slice was told."""

    layers: str = ""
    """``FIRST:END`` of a model in pieces, or `AUTO_LAYERS`; empty: all of it."""
    host: str | None = "127.0.0.1"
    """None: listens nowhere, and is reached through relays only."""
    port: int = 0
    announced: tuple[str, ...] = ()
    """Endpoints for the chain; where empty, ``ws://host:port`` as listened on. Those at relays follow them."""
    offer: OfferTerms = field(default_factory=OfferTerms)
    most_layers: int | None = None
    """Where the network chooses the layers: no more than this many, however many fit."""


@dataclass(frozen=True, slots=True)
class SliceSetting:
    """What a slice shares with the others of its worker."""

    engine: EngineOptions
    owner: bytes | None = None
    may_register_model: bool = False
    claims: ClaimPolicy = field(default_factory=ClaimPolicy)
    limits: ChannelLimits = DEFAULT_LIMITS
    relays: tuple[RelayUrl, ...] = ()
    seeding_port: SeedingPort = lambda: 0
    """Where the worker seeds pieces now; 0: nowhere."""


class Slice:
    """Layers of a model, offered by a provider of their own."""

    def __init__(
        self,
        home: Path,
        options: SliceOptions,
        setting: SliceSetting,
        model: SliceModel,
        keys: WorkerKeys,
        chain: Chain,
    ) -> None:
        self._home = home
        self._options = options
        self._setting = setting
        self._model = model
        self._keys = keys
        self._chain = chain
        self.registration = Registration(chain, keys, setting.owner)
        self.meter = RowMeter()
        self.store = Store(home / LEDGER)
        self.engine = EngineHost(replace(setting.engine, model_path=model.path, log_path=home / "engine.log"))
        self.pool = SequencePool(self.engine, time.monotonic, MemoryWatch(time.monotonic).shortage)
        self.engine.on_new_engine = self.pool.forget_all
        self.tasks: list[asyncio.Task[None]] = []
        """What runs as long as the slice is served; an end of one of them is a defect."""
        self._draining = False
        self._served: Served | None = None
        self._tester: SelfTester | None = None
        self._server: StageServer | None = None
        self._settlement: Settlement | None = None
        self._relays = RelayPlaces(setting.relays, keys.service, self._serve, setting.limits)
        self._direct: tuple[str, ...] = ()
        self._is_over = False

    # -- beginning --------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Have the model loaded, held against the registry, and the door open; nothing is on chain yet.

        Raises:
            ModelRefused, EngineGone, ModelMismatch, SelfTestFailed, …
        """
        loading = asyncio.create_task(self._load_engine())
        try:
            await wait_for_chain(self._chain, CHAIN_WAIT_S)
            engine = await loading
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        self._served = await self._model.identify(self._chain, engine)
        await self._check(self._served, engine)
        refused = await last_refused_epoch(self._home, self.store, self._chain)
        self._server = self._make_server(self._served, refused)
        await self._open_door(self._server)

    async def _open_door(self, server: StageServer) -> None:
        """Take clients: at a port of its own, at relays, or both."""
        options, relays = self._options, self._setting.relays
        self._direct = options.announced
        if options.host is not None:
            port = await server.listen(options.host, options.port)
            self._direct = self._direct or own_endpoints(options.host, port, has_relays=bool(relays))
        if relays:
            self._spawn(self._relays.run())

    async def _serve(self, link: Link) -> None:
        await self._loaded()[1].on_connection(link)

    async def _load_engine(self) -> ServingEngine:
        await self._model.prepare(self._chain)
        return await self.engine.start()

    async def _check(self, served: Served, engine: ServingEngine) -> None:
        """What a slice must show between its engine's start and its offer.

        Raises:
            SelfTestFailed: the layers do not compute what their model's probe says.
        """
        self._tester = SelfTester(
            served.probe,
            engine=self.engine.current,
            is_idle=lambda: not self.busy and not self.waiting_calls,
            make_room=self.pool.make_room,
        )
        await self._tester.test(engine)
        self.engine.check = self._tester.test
        _log.info(
            "layers %d:%d of %s are loaded: %d bytes, %d rows of context; self-test: %s",
            *(served.first_layer, served.end_layer, served.manifest.name),
            *(engine.info.model_bytes, served.context_rows, self._tester.in_words()),
        )

    async def offer(self) -> None:
        """Register and offer what was loaded, and go on claiming and beating.

        Waits for a relay where nobody could reach the slice without one.

        Raises:
            ModelNotRegistered, NotRegistered, TransactionRefused, …
        """
        served, server = self._loaded()
        if not self._direct:
            await self._relays.wait_for_one()
        await self.registration.announce(
            served.manifest,
            self._direct + self._relays.endpoints,
            self._options.offer,
            layers=(served.first_layer, served.end_layer),
            may_register_model=self._setting.may_register_model,
        )
        self._settlement = self._make_settlement(server)
        self._spawn(self._settlement.run())
        self._spawn(self._stay_offered())
        if self._tester is not None and self._tester.has_probe:
            self._spawn(self._tester.keep())

    async def _stay_offered(self) -> None:
        await self.registration.be_seen()
        await self.registration.keep_alive()

    def _loaded(self) -> tuple[Served, StageServer]:
        assert self._served is not None and self._server is not None, "load() comes first"
        return self._served, self._server

    async def wait_refused(self) -> None:
        """Wait for ever, or until no engine can be had any more.

        Raises:
            ModelRefused: the model file changed under the worker.
        """
        await self.engine.wait_refused()

    # -- while it serves --------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether any session is in the middle of an answer."""
        return self._server is not None and self._server.busy

    @property
    def answering(self) -> int:
        """Sessions in the middle of an answer."""
        return self._server.answering if self._server is not None else 0

    @property
    def waiting_calls(self) -> int:
        """Calls that the engine has not answered yet."""
        return self.engine.current().waiting_calls if self.engine.alive else 0

    async def refresh(self, session: bytes) -> None:
        """Prove a connected session's terms again now."""
        if self._server is not None:
            await self._server.refresh(session)

    async def status(self) -> SliceStatus:
        """What the slice says of itself."""
        totals = await self.store.totals()
        told = SliceStatus(
            sessions=len(self._server.connected) if self._server else 0,
            rows_served=totals.rows_served,
            tokens_per_s=self.meter.rows_per_s,
            earned_unclaimed_udllm=totals.earned_unclaimed_udllm,
            claimed_udllm=totals.claimed_udllm,
            engine_restarts=self.engine.restarts,
            self_test=self._tester.in_words() if self._tester else "",
            self_tests=self._tester.passed if self._tester else 0,
        )
        if self._served is not None:
            prefix = self._chain.address_prefix
            told.owner = encode_address(prefix, self.registration.owner)
            told.operator = encode_address(prefix, self._keys.operator_address)
            told.provider = encode_address(prefix + PROVIDER_SUFFIX, self.registration.provider)
            told.model = self._served.manifest.name
            told.layers = (self._served.first_layer, self._served.end_layer)
            told.endpoints = self._direct + self._relays.endpoints
            info = self.engine.info
            told.sequences, told.context_rows = info.sequences, self._served.context_rows
            told.device, told.gpu_layers = info.device, info.gpu_layers
            if not self._is_over:
                told.endpoint_states = dict.fromkeys(self._direct, OPEN) | self._relays.states
        return told

    # -- the end ----------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Begin nothing new."""
        self._draining = True

    async def close_door(self) -> None:
        """Say goodbye to every client."""
        if self._server is not None:
            await self._server.close("this worker stops")

    async def farewell(self) -> None:
        """Claim what is owed and take the offer back.

        Raises:
            DllmError: not everything could be settled; the next start goes on with it.
        """
        if self._settlement is not None:
            await self._settlement.settle_all()
        await self.registration.withdraw()

    async def end(self) -> None:
        """Let go of everything, whatever state it is in."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.close_door()
        await self._relays.close()
        self._is_over = True
        await self.engine.close()

    async def close(self) -> None:
        """Close ledger and chain; after `end`, when the last status was written."""
        await self.store.close()
        await self._chain.close()

    # -- parts ------------------------------------------------------------------------------------------------

    def _make_server(self, served: Served, last_refused: int | None) -> StageServer:
        bench = Workbench(
            engine=self.engine,
            pool=self.pool,
            vocabulary_bytes=served.vocabulary_bytes,
            context_rows=served.context_rows,
            store=self._remember,
            draining=lambda: self._draining,
            count_rows=self.meter.count,
        )
        return StageServer(
            chain=self._chain,
            keys=self._keys,
            provider=self.registration.provider,
            manifest=served.manifest,
            bench=bench,
            store=self.store,
            limits=self._setting.limits,
            last_refused_epoch=last_refused,
            row_memory=RowMemory.within(reserve_of(free_memory()) // self._setting.engine.memory_share),
            seeding_port=self._setting.seeding_port,
        )

    def _make_settlement(self, server: StageServer) -> Settlement:
        return Settlement(
            chain=self._chain,
            store=self.store,
            provider=self.registration.provider,
            policy=self._setting.claims,
            connected=lambda: server.connected,
            on_look=server.refresh,
            on_closed=server.drop,
            now_ms=_now_ms,
        )

    async def _remember(self, session: bytes, standing: Standing) -> None:
        owed = 0
        if standing.voucher is not None:
            legs = standing.voucher.voucher.legs
            provider = self.registration.provider
            owed = next((leg.cumulative_udllm for leg in legs if leg.provider == provider), 0)
        await self.store.put(session, standing, owed, _now_ms())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
