"""Who is waited for before a batch begins, on a clock of the test's own; what one turn asks is one batch."""

from __future__ import annotations

import asyncio

import pytest

from local_worker.engine.client import Engine
from local_worker.engine.gathering import MAX_PATIENCE_S, PATIENCE_SHARE, Gathering

BATCH_S = 0.02
PATIENCE_S = PATIENCE_SHARE * BATCH_S


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def after_a_round(away_s: tuple[float, ...]) -> tuple[Gathering, Clock]:
    """Sequences 0, 1, … that stayed away for so long the last time, and were answered together just now."""
    clock = Clock()
    gathering = Gathering(clock)
    gathering.answered(range(len(away_s)))
    start_s = clock.now_s
    for sequence in sorted(range(len(away_s)), key=lambda one: away_s[one]):
        clock.now_s = start_s + away_s[sequence]
        gathering.asked(sequence)
    gathering.answered(range(len(away_s)))
    return gathering, clock


def test_whoever_is_due_is_waited_for_no_longer_than_the_patience() -> None:
    gathering, clock = after_a_round((0.05, 0.051))
    clock.now_s += 0.05
    gathering.asked(0)
    assert gathering.patience_s(BATCH_S) == pytest.approx(PATIENCE_S)
    clock.now_s += PATIENCE_S / 2
    assert gathering.patience_s(BATCH_S) == pytest.approx(PATIENCE_S / 2)
    clock.now_s += PATIENCE_S
    assert gathering.patience_s(BATCH_S) == 0


def test_when_all_have_come_the_batch_begins() -> None:
    gathering, clock = after_a_round((0.05, 0.051))
    clock.now_s += 0.05
    gathering.asked(0)
    gathering.asked(1)
    assert gathering.patience_s(BATCH_S) == 0


def test_nobody_waits_for_who_is_away_for_longer() -> None:
    """As where two groups of sessions pass through the stages one behind the other."""
    gathering, clock = after_a_round((0.05, 0.09))
    clock.now_s += 0.05
    gathering.asked(0)
    assert gathering.patience_s(BATCH_S) == 0


def test_nobody_waits_for_who_has_stopped_asking() -> None:
    gathering, clock = after_a_round((0.05, 0.051))
    clock.now_s += 0.07
    gathering.asked(0)
    assert gathering.patience_s(BATCH_S) == 0


def test_nobody_waits_for_a_sequence_that_was_given_to_another_session() -> None:
    gathering, clock = after_a_round((0.05, 0.05))
    gathering.forget(1)
    clock.now_s += 0.05
    gathering.asked(0)
    assert gathering.patience_s(BATCH_S) == 0


def test_a_lone_session_never_waits() -> None:
    clock = Clock()
    gathering = Gathering(clock)
    for _ in range(3):
        gathering.asked(0)
        assert gathering.patience_s(BATCH_S) == 0
        gathering.answered([0])
        clock.now_s += 0.01


def test_patience_has_a_bound_of_its_own() -> None:
    gathering, clock = after_a_round((0.05, 0.05))
    clock.now_s += 0.05
    gathering.asked(0)
    assert gathering.patience_s(10.0) == pytest.approx(MAX_PATIENCE_S)


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
