"""When a stage counts as slow: by its own best time, by the others' time for a layer, and never for a little."""

from __future__ import annotations

import pytest

from dllm_chat.session.pace import MEMORY_ROWS, SLOW_FACTOR, SLOW_S, Pace


def noted(pace: Pace, *seconds: float, rows: int = MEMORY_ROWS) -> None:
    for _ in range(rows):
        for stage, one in enumerate(seconds):
            pace.note(stage, one)


def test_a_stage_is_slow_beside_its_own_best_time() -> None:
    pace = Pace([4])
    noted(pace, 0.1)
    assert pace.slow_stages() == []
    noted(pace, 0.1 * SLOW_FACTOR + 0.01)
    assert pace.slow_stages() == [0]


def test_a_stage_is_slow_beside_what_the_others_take_for_as_many_layers() -> None:
    pace = Pace([10, 1, 1])
    noted(pace, 1.0, 0.1, 0.1)
    assert pace.slow_stages() == [], "ten layers take ten times as long"
    pace = Pace([1, 1, 1])
    noted(pace, 1.0, 0.1, 0.1)
    assert pace.slow_stages() == [0]


def test_nobody_is_slow_for_a_little_or_for_one_row() -> None:
    pace = Pace([1, 1])
    noted(pace, 0.9 * SLOW_S, 0.001)
    assert pace.slow_stages() == []
    pace = Pace([1, 1])
    noted(pace, 0.01, 0.01)
    pace.note(0, 30.0)
    assert pace.slow_stages() == []


def test_the_slowest_comes_first_and_few_rows_say_nothing() -> None:
    pace = Pace([1, 1, 1, 1, 1])
    noted(pace, 0.1, 0.1, 0.1, 2.0, 3.0, rows=MEMORY_ROWS - 1)
    assert pace.slow_stages() == []
    noted(pace, 0.1, 0.1, 0.1, 2.0, 3.0, rows=1)
    assert pace.slow_stages() == [4, 3]


@pytest.mark.parametrize(
    ("told_s", "slow"),
    [
        ((0.01, 0.51, 0.52), 1),
        ((0.01, 0.52, 0.51), 1),  # the row went on before the stage's service said so
        ((0.51, 0.52, 0.53), 0),
        ((0.53, 0.52, 0.51), 0),
        ((0.51, 0.53, 0.52), 0),
        ((0.01, 0.51, 0.02), 1),  # it handed the row on at once, and is not ready for the next one
        ((0.51, 0.52, 0.02), 0),  # a last stage that answers before the row can have come
        ((0.02, 0.01, 0.51), 2),
    ],
)
def test_a_row_is_with_a_stage_until_it_or_one_behind_it_says_that_it_is_done(
    told_s: tuple[float, ...], slow: int
) -> None:
    pace = Pace([1, 1, 1])
    for _ in range(MEMORY_ROWS):
        pace.note_row(told_s)
    assert pace.slow_stages() == [slow]


def test_words_that_come_late_of_every_second_row_are_not_charged_to_whoever_stands_behind() -> None:
    pace = Pace([1, 1, 1])
    for _ in range(MEMORY_ROWS):
        pace.note_row((0.01, 0.02, 0.03))
    for _ in range(MEMORY_ROWS // 2):
        pace.note_row((0.01, 0.51, 0.52))
        pace.note_row((0.01, 0.81, 0.51))
    assert pace.slow_stages() == [1]


def test_nobody_is_slow_for_being_far_away() -> None:
    pace = Pace([1, 1, 1])
    for _ in range(MEMORY_ROWS):
        pace.note_row((0.31, 0.02, 0.01))
    assert pace.slow_stages() == [0]
    assert pace.slow_stages(round_trip_s=0.3) == []
    for _ in range(MEMORY_ROWS):
        pace.note_row((0.91, 0.02, 0.01))
    assert pace.slow_stages(round_trip_s=0.3) == [0]
