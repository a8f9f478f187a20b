"""Rows are replayed as they were asked for: prompts as they came, tokens few at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_chat.session.together import TILE_ROWS, Together
from dllm_protocol.messages import ROW_DRAFTED, ROW_KEPT, ROW_PROMPT, ROW_REPLAYED
from dllm_protocol.session.ledger import WINDOW_PROMPT_ROWS

KINDS = (ROW_PROMPT, ROW_KEPT, ROW_DRAFTED, ROW_REPLAYED)


def test_a_prompt_that_is_new_goes_in_the_largest_requests() -> None:
    parts = Together().parts(ROW_PROMPT, 10, 10 + 3 * WINDOW_PROMPT_ROWS)
    assert [end - begin for begin, end in parts] == 3 * [WINDOW_PROMPT_ROWS]
    parts = Together().parts(ROW_PROMPT, 10, 10 + 2 * WINDOW_PROMPT_ROWS + 1)
    short = WINDOW_PROMPT_ROWS + 1 - TILE_ROWS
    assert [end - begin for begin, end in parts] == [WINDOW_PROMPT_ROWS, short, TILE_ROWS]


def test_a_conversation_is_replayed_as_it_went() -> None:
    together = Together()
    together.parts(ROW_PROMPT, 0, 100)
    for row in range(100, 170):
        together.note(ROW_KEPT, row)
    together.parts(ROW_PROMPT, 170, 220)
    together.note(ROW_DRAFTED, 220)
    assert together.parts(ROW_REPLAYED, 0, 236) == [
        (0, 100),
        (100, 132),
        (132, 164),
        (164, 170),
        (170, 220),
        (220, 236),
    ]
    assert together.parts(ROW_REPLAYED, 40, 101) == [(40, 100), (100, 101)]


def test_a_long_prompt_of_which_only_the_beginning_was_asked_for_is_cut_as_it_would_have_been() -> None:
    together = Together()
    parts = together.parts(ROW_PROMPT, 0, 600)
    together.note(ROW_PROMPT, 0)
    assert together.parts(ROW_REPLAYED, 0, 600) == parts


def test_what_is_cut_off_does_not_count_and_a_replay_changes_nothing() -> None:
    together = Together()
    together.parts(ROW_PROMPT, 0, 100)
    together.note(ROW_REPLAYED, 0)
    together.note(ROW_KEPT, 60)
    assert together.parts(ROW_REPLAYED, 0, 100) == [(0, 60), (60, 92), (92, 100)]
    together.parts(ROW_PROMPT, 0, 40)
    assert together.parts(ROW_REPLAYED, 0, 70) == [(0, 40), (40, 70)]


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 900), st.integers(1, 300)), max_size=12),
    st.sampled_from(KINDS),
    st.integers(0, 900),
    st.integers(1, 900),
)
def test_parts_are_all_rows_in_order_and_none_is_too_long(
    asked: list[tuple[int, int, int]], kind: int, first: int, rows: int
) -> None:
    together = Together()
    for one, begin, count in asked:
        together.note(one, begin)
        together.parts(one, begin, begin + count)
    parts = together.parts(kind, first, first + rows)
    assert [row for begin, end in parts for row in range(begin, end)] == list(range(first, first + rows))
    assert all(0 < end - begin <= WINDOW_PROMPT_ROWS for begin, end in parts)


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_are_no_parts(kind: int) -> None:
    assert Together().parts(kind, 5, 5) == []
