"""How near is near enough: rows beside the expected ones, by what a chunk added."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.probing.closeness import (
    DENSE,
    ROUTED,
    Comparison,
    RowDifference,
    Tolerance,
    compare_hidden,
    compare_logits,
)

WIDTH = 4


def pack(*rows: Sequence[float]) -> bytes:
    return b"".join(struct.pack(f"<{len(row)}f", *row) for row in rows)


def with_errors(*errors: float) -> Comparison:
    return Comparison(tuple(RowDifference(row, error, 1.0, 1.0) for row, error in enumerate(errors)), False)


def test_equal_rows_are_exact() -> None:
    rows = pack([1, 2, 3, 4], [0, 0, 0, 0])
    found = compare_hidden(rows, rows, None, WIDTH)
    assert found.is_exact and found.first_beyond(Tolerance(0.0, 0.0)) is None
    assert [(one.error, one.cosine, one.length_ratio) for one in found.rows] == [(0.0, 1.0, 1.0)] * 2


def test_a_chunk_that_hands_on_what_it_got_is_noticed() -> None:
    """Its rows are within two percent of the right ones; what it added is all wrong."""
    entered, right = pack([100, 0, 0, 0], [0, 50, 0, 0]), pack([100, 2, 0, 0], [0, 50, 1, 0])
    assert compare_hidden(right, entered, None, WIDTH).first_beyond(DENSE) is None
    found = compare_hidden(right, entered, entered, WIDTH)
    beyond = found.first_beyond(ROUTED)
    assert beyond is not None and (beyond.row, beyond.error, beyond.length_ratio) == (0, 1.0, 0.0)
    assert not found.is_exact


def test_what_differs_is_told_with_numbers() -> None:
    entered = pack([0, 0, 0, 0], [1, 1, 1, 1])
    found = compare_hidden(pack([1, 0, 0, 0], [1, 1, 1, 2]), pack([1, 0, 0, 0], [3, 1, 1, 1]), entered, WIDTH)
    worst = found.worst
    assert (worst.row, worst.cosine, worst.length_ratio) == (1, 0.0, 2.0)
    assert worst.error == pytest.approx(math.sqrt(5))
    assert worst.in_words() == "row 1 has an error of 2.2, cosine 0.0000, length 2 times"
    assert found.first_beyond(DENSE) == worst


def test_a_row_that_was_not_to_change_and_did() -> None:
    found = compare_hidden(pack([1, 1, 1, 1]), pack([1, 1, 1, 1.5]), pack([1, 1, 1, 1]), WIDTH)
    assert found.rows[0].error == math.inf and found.first_beyond(ROUTED) is not None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_is_never_near(bad: float) -> None:
    found = compare_hidden(pack([1, 1, 1, 1], [2, 2, 2, 2]), pack([1, 1, 1, bad], [2, 2, 2, 2]), None, WIDTH)
    beyond = found.first_beyond(ROUTED)
    assert beyond is not None and beyond.row == 0 and found.worst.row == 0


@given(st.lists(st.floats(-100, 100, width=32), min_size=8, max_size=8), st.floats(0.001, 0.04))
def test_a_rounding_is_near_enough(values: list[float], part: float) -> None:
    rows = [[1.0 + abs(v) for v in values[:4]], [1.0 + abs(v) for v in values[4:]]]
    moved = [[v * (1 + part) for v in row] for row in rows]
    found = compare_hidden(pack(*rows), pack(*moved), None, WIDTH)
    assert found.first_beyond(DENSE) is None
    assert found.worst.error == pytest.approx(part, rel=1e-3)


@pytest.mark.parametrize(
    ("sizes", "entered", "width"),
    [((16, 32), None, 4), ((16, 16), 32, 4), ((18, 18), None, 4), ((0, 0), None, 4), ((16, 16), None, 0)],
)
def test_sizes_that_do_not_fit(sizes: tuple[int, int], entered: int | None, width: int) -> None:
    with pytest.raises(ValueError, match="rows of"):
        compare_hidden(bytes(sizes[0]), bytes(sizes[1]), None if entered is None else bytes(entered), width)


def test_half_of_the_rows_must_be_near_and_all_not_far() -> None:
    assert with_errors(0.9, 0.1, 0.2, 0.8).first_beyond(ROUTED) is None
    assert with_errors(0.9, 0.31, 0.32, 0.1).first_beyond(ROUTED) == RowDifference(0, 0.9, 1.0, 1.0)
    assert with_errors(0.1, 0.1, 0.91, 0.1).first_beyond(ROUTED) == RowDifference(2, 0.91, 1.0, 1.0)
    assert with_errors(0.01, 0.01, 0.01, 0.07).first_beyond(DENSE) == RowDifference(3, 0.07, 1.0, 1.0)
    assert with_errors(0.3).first_beyond(ROUTED) is None


# --- logits

EXPECTED = [([7, 3], [4.0, 2.0]), ([1, 2], [9.0, 5.0])]


def test_logits_may_come_with_more_and_are_looked_up_by_token() -> None:
    found = compare_logits(EXPECTED, [([7, 3, 5], [4.0, 2.0, 1.0]), ([1, 2, 0], [9.0, 5.0, -1.0])])
    assert found.is_exact and found.worst.error == 0.0
    turned = compare_logits(EXPECTED, [([3, 7, 5], [3.1, 3.0, 1.0]), ([1, 2, 0], [9.0, 5.0, -1.0])])
    assert not turned.is_exact and turned.rows[1].error == 0.0
    assert turned.rows[0].error == pytest.approx(math.hypot(1.0, 1.1) / math.hypot(1, 1))


def test_a_token_that_did_not_come_counts_with_the_least_that_came() -> None:
    found = compare_logits(EXPECTED[:1], [([7, 9], [4.0, 3.0])])
    assert found.rows[0].error == pytest.approx(1.0 / math.hypot(1, 1))
    assert not found.is_exact


def test_logits_without_spread() -> None:
    flat = [([1, 2], [3.0, 3.0])]
    assert compare_logits(flat, flat).is_exact
    assert compare_logits(flat, [([1, 2], [3.0, 2.9])]).worst.error == math.inf


@pytest.mark.parametrize("got", [[], EXPECTED[:1], [([], []), ([], [])]])
def test_other_rows_than_were_expected(got: list[tuple[list[int], list[float]]]) -> None:
    with pytest.raises(ValueError, match="rows of logits"):
        compare_logits(EXPECTED, got)
