"""Rows are computed together where that is cheaper, and alone where it is not; an engine finds out which it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from local_worker.engine.batch_costs import ENOUGH, REMEMBERED, TRIED_EVERY, BatchCosts
from local_worker.engine.gathering import Choice, Gathering

WAITING = [0, 1, 2]


def chosen(costs: BatchCosts, rows_s: Callable[[int], float], choices: int) -> list[int]:
    """So many batches of up to three rows; how many each had."""
    found = []
    for _ in range(choices):
        rows = 1 if costs.wants_one() else len(WAITING)
        costs.took(rows, rows_s(rows))
        found.append(rows)
    return found


def test_where_three_rows_cost_little_more_than_one_they_stay_together() -> None:
    found = chosen(BatchCosts(), lambda rows: 1.0 + 0.2 * rows, 20 * TRIED_EVERY)
    assert found.count(1) == 20, "the other kind is tried now and then"


def test_where_three_rows_cost_more_than_three_times_one_they_go_alone() -> None:
    found = chosen(BatchCosts(), lambda rows: 1.0 if rows == 1 else 4.2, 20 * TRIED_EVERY)
    settled = found[(ENOUGH + 1) * TRIED_EVERY :]
    assert settled.count(3) <= len(settled) / TRIED_EVERY + 1
    assert 3 in settled, "what seems dearer is tried again now and then"


def test_what_changes_is_noticed() -> None:
    costs = BatchCosts()
    chosen(costs, lambda rows: 1.0 if rows == 1 else 4.2, 8 * TRIED_EVERY)
    assert costs.wants_one()
    chosen(costs, lambda rows: 1.0 + 0.2 * rows, (REMEMBERED + 1) * TRIED_EVERY)
    assert not costs.wants_one()


def test_one_slow_batch_changes_nothing() -> None:
    costs = BatchCosts()
    for _ in range(REMEMBERED):
        costs.took(1, 1.0)
        costs.took(3, 4.2)
    costs.took(1, 50.0)
    assert costs.wants_one()


@pytest.mark.parametrize("alone_s", [0.001, 0.1])
def test_a_gathering_waits_for_nobody_where_rows_go_alone(alone_s: float) -> None:
    now_s = 0.0
    gathering = Gathering(lambda: now_s)
    for _ in range(REMEMBERED):
        gathering.answered(WAITING, 0.03)
        gathering.answered([0], alone_s)
    gathering.asked(1)
    gathering.asked(2)
    # The first one was answered, and is about to ask again.
    found = gathering.choose([1, 2])
    assert (found == Choice((1,))) is (alone_s < 0.01)


def test_a_window_of_several_rows_says_nothing_about_single_rows() -> None:
    gathering = Gathering(lambda: 0.0)
    for _ in range(REMEMBERED):
        gathering.answered(WAITING, 0.03)
        gathering.answered([0], 0.001, 1)
    assert gathering.first_alone(WAITING) == 0
    for _ in range(REMEMBERED):
        gathering.answered([0], 1.0, 16)
    assert gathering.first_alone(WAITING) == 0
