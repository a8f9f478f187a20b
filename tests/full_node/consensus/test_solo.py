"""The solo engine on the event loop: when blocks come, and what becomes of transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dllm_protocol.refusals import SequenceGap, WrongSequence
from full_node.consensus.engine import CommittedBlock, EngineStopped
from full_node.consensus.events import QUEUED_BLOCKS_MAX, EventBus
from full_node.consensus.mempool import MempoolLimits, MempoolRefused
from full_node.consensus.solo import SoloEngine, SoloSettings
from tests.full_node.doubles import ManualClock, note, open_chain, until_settled


@asynccontextmanager
async def running(
    home: Path,
    *,
    heartbeat_ms: int = 0,
    clock: Callable[[], int] | None = None,
    settings: SoloSettings | None = None,
) -> AsyncIterator[SoloEngine]:
    clock = clock or ManualClock()
    engine = SoloEngine(
        open_chain(home, heartbeat_ms=heartbeat_ms, clock=clock), clock_ns=clock, settings=settings
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
        engine.store.close()


async def _until_height(engine: SoloEngine, height: int) -> None:
    subscription = engine.events.subscribe()
    while engine.store.blocks.latest_height() < height:
        await asyncio.wait_for(subscription.next(), 60)
    engine.events.unsubscribe(subscription)


async def test_a_transaction_gets_its_block_and_the_block_its_proof(tmp_path: Path) -> None:
    async with running(tmp_path) as engine:
        assert await until_settled(engine) == 2, "a young chain makes the state of block 1 provable"
        subscription = engine.events.subscribe()
        said = await engine.submit(note("a", 0, "x", "1"))
        assert said.code == 0
        made = await asyncio.wait_for(subscription.next(), 60)
        proof = await asyncio.wait_for(subscription.next(), 60)
        assert made is not None
        assert proof is not None
        assert made.block.txs == (note("a", 0, "x", "1"),)
        assert proof.block.txs == ()
        assert proof.block.header.app_hash == engine.store.root
        assert await until_settled(engine) == 4, "an idle chain without heartbeat makes no blocks"


async def test_heartbeats_keep_an_idle_chain_fresh(tmp_path: Path) -> None:
    import time

    async with running(tmp_path, heartbeat_ms=30, clock=time.time_ns) as engine:
        await _until_height(engine, 5)
        last = engine.store.blocks.block(5)
        assert last is not None


async def test_after_a_long_sleep_the_newest_header_is_fresh(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, heartbeat_ms=60_000, clock=clock) as engine:
        before = await until_settled(engine)
    clock.now_ns += 3600 * 10**9
    woke_ns = clock.now_ns
    async with running(tmp_path, heartbeat_ms=60_000, clock=clock) as engine:
        assert await until_settled(engine) == before + 2
        subscription = engine.events.subscribe()
        await engine.submit(note("a", 0, "x", "1"))
        made = await asyncio.wait_for(subscription.next(), 60)
        assert made is not None
        assert made.block.header.time.to_ns() >= woke_ns


async def test_a_clock_that_was_put_back_does_not_silence_the_chain(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, heartbeat_ms=20, clock=clock) as engine:
        await _until_height(engine, 2)
        clock.now_ns -= 3600 * 10**9
        height = engine.store.blocks.latest_height()
        await _until_height(engine, height + 3)
        assert engine.store.blocks.latest_height() >= height + 3


async def test_two_terminals_on_one_wallet(tmp_path: Path) -> None:
    async with running(tmp_path) as engine:
        order = [3, 0, 2, 1, 5, 4]
        said = await asyncio.gather(*(engine.submit(note("a", n, f"k{n}", "v")) for n in order))
        assert [one.code for one in said] == [0] * 6
        await until_settled(engine)
        assert engine.store.get(b"sequence/a") == b"6"


async def test_a_gap_is_refused_after_its_wait(tmp_path: Path) -> None:
    settings = SoloSettings(mempool=MempoolLimits(gap_wait_ms=20))
    async with running(tmp_path, settings=settings) as engine:
        said = await asyncio.wait_for(engine.submit(note("a", 7, "k", "v")), 60)
        assert (said.code, said.log) == (SequenceGap.abci_code, "sequence 7, expected 0")


async def test_many_transactions_of_many_senders_all_arrive(tmp_path: Path) -> None:
    settings = SoloSettings(block_txs=20)
    async with running(tmp_path, settings=settings) as engine:
        raws = [note(f"s{n % 10}", n // 10, f"k{n}", "v") for n in range(200)]
        said = await asyncio.gather(*(engine.submit(raw) for raw in raws))
        assert {one.code for one in said} == {0}
        await until_settled(engine)
        assert all(engine.store.get(f"note/k{n}".encode()) == b"v" for n in range(200))
        counts = [meta.tx_count for meta in engine.store.blocks.metas(1, 1000)]
        assert sum(counts) == 200
        assert max(counts) <= 20


async def test_refusals_come_back_by_name(tmp_path: Path) -> None:
    async with running(tmp_path) as engine:
        await engine.submit(note("a", 0, "k", "v"))
        with pytest.raises(MempoolRefused, match="already exists"):
            await engine.submit(note("a", 0, "k", "v"))
        assert (await engine.submit(note("a", 0, "k", "w"))).code == WrongSequence.abci_code
        assert await engine.query("/nowhere", b"") is None
        assert await engine.query("/echo", b"x") == b"x"


async def test_looking_at_a_transaction_leaves_no_trace(tmp_path: Path) -> None:
    async with running(tmp_path) as engine:
        for _ in range(2):
            assert (await engine.check(note("a", 0, "k", "v"))).code == 0
        assert (await engine.submit(note("a", 0, "k", "v"))).code == 0


async def test_stopping_puts_what_waits_into_blocks(tmp_path: Path) -> None:
    settings = SoloSettings(gather_ms=60_000)
    async with running(tmp_path, settings=settings) as engine:
        await until_settled(engine)
        assert (await engine.submit(note("a", 0, "k", "v"))).code == 0
        waiting = asyncio.create_task(engine.submit(note("b", 5, "k", "v")))
        await asyncio.sleep(0.05)
        assert (await engine.pending(10)).count == 1
    assert (await waiting).code == SequenceGap.abci_code
    with pytest.raises(EngineStopped):
        await engine.submit(note("a", 1, "k", "v"))
    chain = open_chain(tmp_path)
    chain.open()
    assert chain.store.get(b"note/k") == b"v"
    assert not chain.state.needs_proof_block


async def test_a_failing_application_stops_the_engine_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as engine:
        await until_settled(engine)
        subscription = engine.events.subscribe()

        def fail(*_: object) -> None:
            raise ZeroDivisionError("in the state machine")

        monkeypatch.setattr(engine._chain.application, "finalize_block", fail)
        assert (await engine.submit(note("a", 0, "k", "v"))).code == 0
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(engine.wait(), 60)
        assert await subscription.next() is None
        with pytest.raises(EngineStopped):
            await engine.submit(note("a", 1, "k", "v"))


async def test_a_slow_listener_is_dropped_and_told(tmp_path: Path) -> None:
    chain = open_chain(tmp_path)
    chain.open()
    block: CommittedBlock = chain.make_block([])
    bus = EventBus()
    slow, quick = bus.subscribe(), bus.subscribe()
    for _ in range(QUEUED_BLOCKS_MAX + 1):
        bus.publish(block)
        assert await quick.next() is block
    assert slow.lagged
    for _ in range(QUEUED_BLOCKS_MAX):
        assert await slow.next() is block
    assert await slow.next() is None
    bus.close()
    assert await quick.next() is None
