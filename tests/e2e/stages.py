"""A model on several workers: real engine processes, real stage servers and sealed channels, a chain in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from dllm_chat.dispatch.sessions import Sessions
from dllm_chat.session.front_desk import LegFailed
from dllm_chat.session.lineup import Lineup
from dllm_chat.session.saved import SavedSession, SessionStore
from dllm_chat.session.token_log import TokenLog
from dllm_protocol import records
from dllm_protocol.assignment import route_hash, session_id_of
from dllm_protocol.messages import ROW_PROMPT, ROW_REPLAYED
from dllm_protocol.model_manifest import Manifest, manifest_hash
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.pricing import RowPrices
from dllm_protocol.records import SESSION_OPEN, Route, RouteStage
from dllm_protocol.sealing import SealingKey
from dllm_protocol.session.ledger import fresh_state
from dllm_protocol.signing import SeedSigner
from light_node.channel.limits import ChannelLimits
from local_worker.engine_host import EngineHost, EngineOptions
from local_worker.keys import WorkerKeys
from local_worker.packages.assembling import assemble
from local_worker.row_room import RowMemory
from local_worker.sequences import SequencePool
from local_worker.stage_server import StageServer
from local_worker.store import Store
from local_worker.workbench import Workbench
from tests.local_worker.doubles import ChainDouble
from tests.local_worker.packages.chains import packed
from tests.local_worker.packages.tiny_models import VOCABULARY, Shape, write_model

CONTEXT_ROWS = 512
DEPOSIT_UDLLM = 10**9
SHARE_PPM = 100_000
PRICES = RowPrices(100, 1000, 1000, 100)
ACCOUNT = b"\7" * 20
LIMITS = ChannelLimits(handshake_ms=5_000, write_ms=5_000, close_ms=300)


@dataclass
class Worker:
    """One provider of layers [first, end)."""

    number: int
    first: int
    end: int
    keys: WorkerKeys
    engine: EngineHost
    server: StageServer
    pool: SequencePool
    port: int
    folder: Path
    rows: int = 0
    """Rows that it decoded."""
    is_dead: bool = False

    @property
    def provider(self) -> bytes:
        return provider_of(self.number)

    async def die(self) -> None:
        """As a power cut: nobody is told, nothing is finished, nobody answers any more."""
        self.is_dead = True  # what it would still write is not written
        door = self.server._server
        assert door is not None
        door._server.close(close_connections=False)
        self.hang_up()
        await self.engine.close()

    def hang_up(self) -> None:
        """All connections to it end now; it stands."""
        for connection in self._connections():
            connection.transport.abort()

    def fall_silent(self) -> None:
        """Nothing more is heard on any connection of now, as behind a network that is another by now."""
        for connection in self._connections():
            connection.transport.pause_reading()

    def _connections(self) -> list[Any]:
        door = self.server._server
        assert door is not None
        return list(door._server.connections)

    @property
    def entry(self) -> BookEntry:
        owner = bytes([200 + self.number]) * 20
        return BookEntry(self.provider, owner, self.first, self.end, PRICES, 4, 500_000)


def provider_of(number: int) -> bytes:
    return bytes([100 + number]) * 20


def keys_of(number: int) -> WorkerKeys:
    seeds = (bytes([number, kind]) * 16 for kind in range(3))
    return WorkerKeys(SeedSigner(next(seeds)), SeedSigner(next(seeds)), SealingKey(next(seeds)))


@dataclass
class Stages:
    """The workers, and the chain that they see."""

    chain: ChainDouble
    manifest: Manifest
    model: Path
    package: Path
    folder: Path
    stack: AsyncExitStack
    workers: list[Worker] = field(default_factory=list)

    async def start(
        self, first: int, end: int, *, kept_rows_bytes: int = 1 << 26, context_rows: int = CONTEXT_ROWS
    ) -> Worker:
        """Another worker, for layers [first, end)."""
        number = len(self.workers)
        home = self.folder / f"worker-{number}"
        home.mkdir()
        chunk = home / "chunk.gguf"
        assemble(self.package, self.manifest, first, end, chunk)
        worker = await self._serve(number, first, end, home, kept_rows_bytes, context_rows)
        self.workers.append(worker)
        return worker

    async def restart(self, dead: Worker) -> Worker:
        """A worker that died is started again over what it had stored."""
        return await self._serve(dead.number, dead.first, dead.end, dead.folder, 1 << 26, CONTEXT_ROWS)

    async def _serve(
        self, number: int, first: int, end: int, home: Path, kept_rows_bytes: int, context_rows: int
    ) -> Worker:
        chunk = home / "chunk.gguf"
        engine = EngineHost(EngineOptions(chunk, home / "engine.log", context_rows, 4, 1))
        await engine.start()
        self.stack.push_async_callback(engine.close)
        pool = SequencePool(engine, lambda: 0.0)
        engine.on_new_engine = pool.forget_all
        keys, store = keys_of(number), Store(home / "worker.db")
        self.stack.push_async_callback(store.close)
        worker = cast(Worker, None)

        async def remember(session: bytes, standing: Any) -> None:
            if not worker.is_dead:
                await store.put(session, standing, 0, 0)

        def count(rows: int) -> None:
            worker.rows += rows

        bench = Workbench(engine, pool, b"", context_rows, remember, lambda: False, count)
        server = StageServer(
            chain=self.chain,
            keys=keys,
            provider=provider_of(number),
            manifest=self.manifest,
            bench=bench,
            store=store,
            limits=LIMITS,
            row_memory=RowMemory(kept_bytes=kept_rows_bytes),
        )
        port = await server.listen("127.0.0.1", 0)
        self.stack.push_async_callback(server.close, "the test is over")
        worker = Worker(number, first, end, keys, engine, server, pool, port, home)
        self.chain.providers[worker.provider] = records.Provider(
            worker.entry.owner,
            keys.operator_address,
            keys.service.public_key,
            keys.sealing.public_key,
            (f"ws://127.0.0.1:{port}",),
            "",
            0,
            (),
            0,
            0,
            (),
        )
        return worker

    def client(self, seed: int, route: Sequence[tuple[Worker, Worker | None]]) -> Asking:
        """A session over these (stage, standby) pairs."""
        key = SeedSigner(bytes([seed]) * 32)
        session_id = session_id_of(ACCOUNT, key.public_key)
        stages = tuple(RouteStage(one.entry, other.entry if other else None) for one, other in route)
        name = self.manifest.name
        made = Route(session_id, name, manifest_hash(self.manifest), 1, b"\5" * 32, b"\6" * 32, (), stages)
        session = records.Session(
            ACCOUNT,
            name,
            key.public_key,
            route_hash(made),
            DEPOSIT_UDLLM,
            0,
            SESSION_OPEN,
            0,
            (),
            b"",
            0,
            0,
            SHARE_PPM,
            0,
        )
        self.chain.sessions[session_id] = (session, made)
        purse = cast(Any, SimpleNamespace(account=ACCOUNT, session_key=lambda index: key))
        store = SessionStore(self.folder / f"client-{seed}")
        reads = cast(Any, self.chain)
        sessions = Sessions(self.chain.chain_id, reads, cast(Any, None), purse, store)
        chain = SimpleNamespace(
            chain_id=self.chain.chain_id, prefix="local", reads=reads, purse=purse, sessions=sessions
        )
        saved = SavedSession(
            self.chain.chain_id,
            ACCOUNT,
            0,
            made,
            DEPOSIT_UDLLM,
            SHARE_PPM,
            fresh_state(session_id),
            (),
            0,
            bytes(32),
        )
        return Asking(cast(Any, chain), saved)


class Asking:
    """A client that asks for tokens, greedy ones if nothing else is said, and goes on whatever fails."""

    def __init__(self, chain: Any, saved: SavedSession) -> None:
        self.log = TokenLog()
        self.rank = 0
        """Which token it takes: 0 the likeliest, 1 the next, which nobody guesses."""
        self.questions = False
        """Whether standbys are asked what they can."""
        self.served: list[bytes] = []
        self.changes: list[tuple[bytes, bytes]] = []
        self.margins: list[float] = []
        self._chain = chain
        self._saved = saved
        self.lineup = self._new()

    def _new(self) -> Lineup:
        return Lineup(
            self._chain,
            self._saved,
            exclude=frozenset(),
            log=self.log,
            on_served=self.served.append,
            on_replaced=lambda failed, successor, reason: self.changes.append((failed, successor)),
        )

    async def tokens(self, prompt: Sequence[int], count: int) -> AsyncIterator[int]:
        """Greedy tokens behind a prompt, one after the other."""
        ids, kind = list(prompt), ROW_PROMPT
        decoder = await self.lineup.open()
        if self.questions:
            decoder = await self.lineup.question_standbys(
                rows=10**6, vocab_size=VOCABULARY, architecture="llama"
            )
        row = None
        for number in range(count):
            while row is None:
                try:
                    if number and kind == ROW_PROMPT:
                        row = await decoder.decode_next(ids[-1], 8)
                    else:
                        row = await decoder.decode(ids, kind=kind, top_k=8)
                        kind = ROW_PROMPT
                except LegFailed as failure:
                    decoder = await self.lineup.replace(failure, len(ids))
                    kind = ROW_REPLAYED
            ids.append(row.ids[self.rank])
            self.margins.append(row.logits[0] - row.logits[1])
            yield ids[-1]
            self.lineup.warm_standbys()
            row = None
        await decoder.seal_turn()

    async def answer(self, prompt: Sequence[int], count: int) -> list[int]:
        """All of them at once; the channels stay open."""
        return [token async for token in self.tokens(prompt, count)]

    async def leave(self) -> None:
        """Hang up; what providers hold stays known for the next answer."""
        decoder = self.lineup.decoder
        if decoder is not None:
            self.log.ids = list(decoder.held)
        await self.lineup.close("the answer is over")
        self._saved = self.lineup.saved
        self.lineup = self._new()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something, for a minute at most."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  nothing announces what these tests wait for
            await asyncio.sleep(0.01)


@asynccontextmanager
async def stages_of(folder: Path, shape: Shape) -> AsyncIterator[Stages]:
    """A tiny model, packed; workers are started one by one."""
    model = write_model(folder / "model.gguf", shape)
    manifest = await asyncio.to_thread(packed, model, folder / "package")
    async with AsyncExitStack() as stack:
        yield Stages(ChainDouble(b"\1" * 20), manifest, model, folder / "package", folder, stack)


async def whole_answer(stages: Stages, prompt: Sequence[int], count: int) -> list[int]:
    """What the model says that is not cut."""
    engine = EngineHost(EngineOptions(stages.model, stages.folder / "whole.log", CONTEXT_ROWS, 1, 1))
    await engine.start()
    try:
        sequence = engine.current().open_sequence()
        ids, found = list(prompt), []
        (row,) = await sequence.decode(0, ids, top_k=8, outputs="last")
        for _ in range(count):
            found.append(int(row.ids[0]))
            (row,) = await sequence.decode(len(prompt) + len(found) - 1, found[-1:], top_k=8, outputs="last")
        return found
    finally:
        await engine.close()
