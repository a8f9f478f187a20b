"""Which session keeps its rows when there is not room for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dllm_protocol.session.transcript import NO_TRANSCRIPT, held_digest
from local_worker.engine.errors import EngineBusy, EngineGone
from local_worker.engine_host import EngineHost, EngineOptions
from local_worker.sequences import RECENT_S, SequencePool

ONE, TWO, THREE = b"\1" * 32, b"\2" * 32, b"\3" * 32


class Bench:
    """A pool over a real engine with two sequences, and a clock in our hand."""

    def __init__(self, host: EngineHost) -> None:
        self.host = host
        self.now_s = 1000.0
        self.shortage = ""
        self.pool = SequencePool(host, lambda: self.now_s, lambda: self.shortage)
        host.on_new_engine = self.pool.forget_all

    async def decode(self, session: bytes, first_position: int, ids: list[int]) -> None:
        held = self.pool.take(session)
        try:
            await held.sequence.decode(first_position, ids, top_k=1, outputs="last")
        finally:
            held.note(first_position, ids)
            self.pool.give_back(held)


@pytest.fixture
async def bench(tmp_path: Path, tiny_model: Path) -> AsyncIterator[Bench]:
    host = EngineHost(EngineOptions(tiny_model, tmp_path / "engine.log", 256, 2, 1))
    await host.start()
    yield Bench(host)
    await host.close()


async def test_rows_are_known_by_their_ids(bench: Bench) -> None:
    assert bench.pool.held(ONE) == (0, NO_TRANSCRIPT)
    await bench.decode(ONE, 0, [5, 6, 7])
    await bench.decode(ONE, 2, [8])
    assert bench.pool.held(ONE) == (3, held_digest([5, 6, 8]))
    assert bench.pool.held_rows(ONE) == 3


async def test_the_session_unused_longest_goes_first(bench: Bench) -> None:
    await bench.decode(ONE, 0, [5])
    bench.now_s += 1
    await bench.decode(TWO, 0, [6])
    bench.now_s += RECENT_S + 1
    await bench.decode(THREE, 0, [7])
    assert [bench.pool.held_rows(session) for session in (ONE, TWO, THREE)] == [0, 1, 1]


async def test_nobody_in_the_middle_of_an_answer_goes(bench: Bench) -> None:
    await bench.decode(ONE, 0, [5])
    await bench.decode(TWO, 0, [6])
    with pytest.raises(EngineBusy):
        bench.pool.take(THREE)
    bench.now_s += RECENT_S + 1
    decoding = bench.pool.take(ONE)
    await bench.decode(THREE, 0, [7])
    assert [bench.pool.held_rows(session) for session in (ONE, TWO, THREE)] == [1, 0, 1]
    bench.pool.give_back(decoding)


async def test_a_session_that_is_over_gives_its_place_back(bench: Bench) -> None:
    await bench.decode(ONE, 0, [5])
    await bench.decode(TWO, 0, [6])
    bench.pool.drop(ONE)
    bench.pool.drop(ONE)
    await bench.decode(THREE, 0, [7])
    assert bench.pool.held(ONE) == (0, NO_TRANSCRIPT)


async def test_a_new_engine_holds_nothing(bench: Bench) -> None:
    await bench.decode(ONE, 0, [5])
    engine = bench.host.current()
    await engine.close()
    assert not bench.host.alive and bench.pool.held(ONE) == (0, NO_TRANSCRIPT)
    with pytest.raises(EngineGone, match="started again"):
        bench.pool.take(ONE)
    async with asyncio.timeout(60):
        while not bench.host.restarts:  # noqa: ASYNC110  it is counted, not announced
            await asyncio.sleep(0.02)
    await bench.decode(ONE, 0, [5])
    assert bench.pool.held_rows(ONE) == 1


async def test_where_memory_is_short_no_further_session_is_taken_on(bench: Bench) -> None:
    """Who is served already goes on: its place is paid for in memory."""
    await bench.decode(ONE, 0, [5])
    bench.shortage = "3 MiB are free"
    await bench.decode(ONE, 1, [6])
    with pytest.raises(EngineBusy, match="memory is short here: 3 MiB are free"):
        bench.pool.take(TWO)
    bench.shortage = ""
    await bench.decode(TWO, 0, [7])
    assert [bench.pool.held_rows(session) for session in (ONE, TWO)] == [2, 1]
