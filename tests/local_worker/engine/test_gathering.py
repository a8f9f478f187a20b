"""Whose rows are computed together and who is waited for, on a clock of the test's own; one turn asks in one piece."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random

import pytest

from local_worker.engine import server
from local_worker.engine.client import Engine
from local_worker.engine.gathering import (
    ABSENCES,
    BUSY_BATCHES,
    IDLE_BATCHES,
    MAX_HOLD_S,
    PAUSE_S,
    Choice,
    Gathering,
    groups_of,
)

BATCH_S = 0.02
HOLD_S = IDLE_BATCHES * BATCH_S


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def after_a_round(
    away_s: tuple[float, ...], *, stages: int = 1, batch_s: float = BATCH_S
) -> tuple[Gathering, Clock]:
    """Sequences 0, 1, … that stayed away for so long the last time, and were answered together just now."""
    clock = Clock()
    gathering = Gathering(clock, stages)
    gathering.answered(range(len(away_s)), batch_s)
    start_s = clock.now_s
    for sequence in sorted(range(len(away_s)), key=lambda one: away_s[one]):
        clock.now_s = start_s + away_s[sequence]
        gathering.asked(sequence)
    gathering.answered(range(len(away_s)), batch_s)
    return gathering, clock


def asked(gathering: Gathering, clock: Clock, *sequences: int) -> None:
    """These ask, and a pause follows, after which nothing more comes by itself."""
    for one in sequences:
        gathering.asked(one)
    clock.now_s += PAUSE_S


def test_whoever_is_due_is_waited_for_no_longer_than_two_cheap_batches_take() -> None:
    gathering, clock = after_a_round((0.05, 0.051))
    clock.now_s += 0.05
    asked(gathering, clock, 0)
    assert gathering.choose([0]) == Choice((), pytest.approx(HOLD_S - PAUSE_S))
    clock.now_s += HOLD_S / 4
    assert gathering.choose([0]) == Choice((), pytest.approx(HOLD_S * 3 / 4 - PAUSE_S))
    clock.now_s += HOLD_S
    assert gathering.choose([0]) == Choice((0,))


def test_when_all_have_come_the_batch_begins_with_all() -> None:
    gathering, clock = after_a_round((0.05, 0.051))
    clock.now_s += 0.05
    gathering.asked(1)
    gathering.asked(0)
    assert gathering.choose([1, 0]) == Choice((1, 0))


def test_nobody_waits_for_who_is_away_for_longer() -> None:
    gathering, clock = after_a_round((0.05, 0.2))
    clock.now_s += 0.05
    asked(gathering, clock, 0)
    assert gathering.choose([0]) == Choice((0,))


def test_nobody_waits_for_who_has_stopped_asking() -> None:
    gathering, clock = after_a_round((0.05, 0.051))
    clock.now_s += ABSENCES * 0.051 + 0.001
    gathering.asked(0)
    assert gathering.choose([0]) == Choice((0,)), "not even for a pause"


def test_nobody_waits_for_a_sequence_that_was_given_to_another_session() -> None:
    gathering, clock = after_a_round((0.05, 0.05))
    gathering.forget(1)
    clock.now_s += 0.05
    gathering.asked(0)
    assert gathering.choose([0]) == Choice((0,))


def test_a_lone_session_never_waits() -> None:
    clock = Clock()
    gathering = Gathering(clock)
    for _ in range(3):
        gathering.asked(0)
        assert gathering.choose([0]) == Choice((0,))
        gathering.answered([0], BATCH_S)
        clock.now_s += 0.01


def test_waiting_has_a_bound_of_its_own() -> None:
    gathering, clock = after_a_round((0.05, 0.05), batch_s=10.0)
    clock.now_s += 0.05
    asked(gathering, clock, 0)
    assert gathering.choose([0]).wait_s == pytest.approx(MAX_HOLD_S - PAUSE_S)


def test_what_comes_in_one_frame_after_the_other_is_waited_for_a_moment() -> None:
    """Also where it is not known that the others are due, for they were held up somewhere the last time."""
    gathering, clock = after_a_round((0.05, 0.5))
    clock.now_s += 0.05
    gathering.asked(0)
    assert gathering.choose([0]) == Choice((), pytest.approx(PAUSE_S))
    clock.now_s += PAUSE_S / 2
    gathering.asked(1)
    assert gathering.choose([0, 1]) == Choice((0, 1))


def test_each_stage_has_its_group_and_waits_for_nobody_of_another() -> None:
    gathering, clock = after_a_round((0.05,) * 8, stages=3)
    clock.now_s += 0.05
    asked(gathering, clock, 3, 4)
    assert gathering.choose([3, 4]) == Choice((3, 4))
    asked(gathering, clock, 6, 7, 5)
    assert gathering.choose([6, 7, 3, 4, 5]) == Choice((6, 7, 5))


def test_others_go_first_for_as_long_as_a_group_is_not_complete() -> None:
    gathering, clock = after_a_round((0.05,) * 4, stages=2)
    clock.now_s += 0.05
    asked(gathering, clock, 0, 2, 3)
    assert gathering.choose([0, 2, 3]) == Choice((2, 3))
    clock.now_s += 0.6 * HOLD_S
    gathering.answered([2, 3], BATCH_S)
    assert gathering.choose([0]) == Choice((0,)), "the engine would do nothing"
    asked(gathering, clock, 2, 3)
    assert gathering.choose([0, 2, 3]) == Choice((2, 3))
    clock.now_s += BUSY_BATCHES * BATCH_S
    assert gathering.choose([0, 2, 3]) == Choice((0,)), "long enough"


def test_groups_are_even_and_cut_where_numbers_are_missing() -> None:
    assert groups_of(range(8), 3) == [(0, 1, 2), (3, 4), (5, 6, 7)]
    assert groups_of(range(16), 3) == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9, 10), (11, 12, 13, 14, 15)]
    assert groups_of([0, 1, 3, 4, 5, 9], 2) == [(0, 1), (3,), (4, 5), (9,)]
    assert groups_of([4], 3) == [(4,)]
    assert groups_of([], 3) == []


MATRICES_S, ROW_S = 0.045, 0.009
"""What a batch takes, and each row in it."""


def said_in(seconds: float, *, streams: int, stages: int, seed: int, gathers: bool = True) -> int:
    """Tokens of so many streams over so many machines in a row, each of which gathers for itself."""
    chance, clock = random.Random(seed), Clock()
    clock.now_s = 0.0
    engines = [Gathering(clock, stages) for _ in range(stages)]
    waiting: list[list[int]] = [[] for _ in range(stages)]
    busy = [False] * stages
    order = itertools.count()
    coming = [(chance.random(), next(order), "row", 0, (one,)) for one in range(streams)]
    heapq.heapify(coming)
    said = 0

    def later(after_s: float, what: str, stage: int, sequences: tuple[int, ...]) -> None:
        heapq.heappush(coming, (clock.now_s + after_s, next(order), what, stage, sequences))

    def look(stage: int) -> None:
        if busy[stage] or not waiting[stage]:
            return
        choice = engines[stage].choose(waiting[stage]) if gathers else Choice((waiting[stage][0],))
        if not choice.sequences:
            later(choice.wait_s, "look", stage, ())
            return
        busy[stage] = True
        waiting[stage] = [one for one in waiting[stage] if one not in choice.sequences]
        later(MATRICES_S + ROW_S * len(choice.sequences), "done", stage, choice.sequences)

    while coming and coming[0][0] < seconds:
        clock.now_s, _, what, stage, sequences = heapq.heappop(coming)
        if what == "row":
            engines[stage].asked(sequences[0])
            waiting[stage].append(sequences[0])
        elif what == "done":
            busy[stage] = False
            engines[stage].answered(sequences, MATRICES_S + ROW_S * len(sequences))
            said += len(sequences) if stage == stages - 1 else 0
            for number, one in enumerate(sequences, start=1):
                later(0.001 * number + 0.002 * chance.random(), "row", (stage + 1) % stages, (one,))
        look(stage)
    return said


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("streams", "stages"), [(8, 3), (8, 2), (4, 4), (16, 3), (8, 1)])
def test_streams_settle_in_groups_that_keep_every_stage_busy(streams: int, stages: int, seed: int) -> None:
    """Against the most that any grouping gives: each stage reads its matrices once a group, and has a group always."""
    seconds = 60.0
    best = seconds * streams / (stages * MATRICES_S + streams * ROW_S)
    said = said_in(seconds, streams=streams, stages=stages, seed=seed)
    assert said >= 0.8 * best
    assert said >= said_in(seconds, streams=streams, stages=stages, seed=seed, gathers=False)


async def test_requests_of_one_turn_of_the_loop_reach_the_engine_in_one_piece(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first would else be decoded alone while the others travel."""
    written: list[int] = []
    transport = engine._transport
    assert transport is not None
    write = transport.write

    def counted(data: bytes) -> None:
        written.append(len(data))
        write(data)

    monkeypatch.setattr(transport, "write", counted)
    sequences = [engine.open_sequence() for _ in range(4)]
    rows = await asyncio.gather(
        *(one.decode(0, [300 + at], top_k=2, outputs="last") for at, one in enumerate(sequences))
    )
    assert len(written) == 1
    assert [len(found) for found in rows] == [1] * 4


@pytest.mark.parametrize(
    ("stages", "is_local", "cores", "threads", "expected"),
    [(3, False, 2, 1, 3), (3, True, 2, 1, 2), (3, True, 16, 8, 2), (3, True, 16, 2, 3), (3, True, 1, 4, 1)],
)
def test_stages_that_share_cores_have_as_many_groups_as_can_compute_at_once(
    monkeypatch: pytest.MonkeyPatch, stages: int, is_local: bool, cores: int, threads: int, expected: int
) -> None:
    monkeypatch.setattr(server, "usable_cores", lambda: cores)
    assert server.groups(stages, is_local, threads) == expected
