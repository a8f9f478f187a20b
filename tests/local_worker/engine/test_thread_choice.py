"""Which number of threads a batch gets, by what slices took."""

from __future__ import annotations

from local_worker.engine.scheduler import SHORT_ROWS
from local_worker.engine.thread_choice import MEMORY_SLICES, STEADY_SLICES, ThreadChoice

FEW, MANY, ROWS = 2, 4, 64


def computed(choice: ThreadChoice, slices: int, row_ms: dict[int, float]) -> list[int]:
    """The threads of so many slices, on a machine on which a row takes so long."""
    chosen = []
    for _ in range(slices):
        threads = choice.of(ROWS)
        choice.took(threads, ROWS, ROWS * row_ms[threads] / 1000)
        chosen.append(threads)
    return chosen


def test_tokens_get_few_and_slices_get_many() -> None:
    choice = ThreadChoice(FEW, MANY)
    assert (choice.of(1), choice.of(SHORT_ROWS), choice.of(SHORT_ROWS + 1)) == (FEW, FEW, MANY)


def test_what_is_faster_is_kept_and_the_other_is_tried_now_and_then() -> None:
    idle = computed(ThreadChoice(FEW, MANY), 100, {FEW: 10, MANY: 5})
    assert idle[:STEADY_SLICES] == [MANY] * STEADY_SLICES
    assert 0 < idle.count(FEW) <= 100 // STEADY_SLICES
    busy = computed(ThreadChoice(FEW, MANY), 100, {FEW: 10, MANY: 50})
    assert 0 < busy[STEADY_SLICES:].count(MANY) <= 100 // STEADY_SLICES


def test_one_slice_that_was_held_up_changes_nothing() -> None:
    choice, row_ms = ThreadChoice(FEW, MANY), {FEW: 10.0, MANY: 5.0}
    computed(choice, STEADY_SLICES + MEMORY_SLICES, row_ms)
    choice.took(choice.of(ROWS), ROWS, 100.0)
    assert choice.of(ROWS) == MANY


def test_a_machine_that_becomes_busy_and_idle_again_is_followed() -> None:
    choice = ThreadChoice(FEW, MANY)
    computed(choice, 50, {FEW: 10, MANY: 5})
    assert computed(choice, 50, {FEW: 10, MANY: 50})[-STEADY_SLICES:].count(FEW) >= STEADY_SLICES - 1
    assert computed(choice, 50, {FEW: 10, MANY: 5})[-STEADY_SLICES:].count(MANY) >= STEADY_SLICES - 1


def test_short_batches_say_nothing_and_there_may_be_nothing_to_choose() -> None:
    choice = ThreadChoice(FEW, MANY)
    choice.took(FEW, SHORT_ROWS, 0.0)
    assert choice.of(ROWS) == MANY
    assert computed(ThreadChoice(1, 1), 50, {1: 10}) == [1] * 50
