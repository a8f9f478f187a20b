"""How many rows are drafted: none without a gain, none without money, as many as pay on a long line."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_chat.session.windows import (
    MAX_DRAFTED_ROWS,
    MAX_FLYING,
    MONEY_PERCENT,
    WindowControl,
    allowed_in_vain,
    may_draft,
)
from dllm_protocol.pricing import RowPrices

PRICES = RowPrices(100, 1000, 1000, 100)
FAR_S, NEAR_S = 0.055, 0.005


def control(plain_s: float = FAR_S, allowance: int = 1_000, prices: RowPrices = PRICES) -> WindowControl:
    made = WindowControl(prices, allowance)
    for _ in range(5):
        made.plain_took(plain_s)
    return made


def teach(made: WindowControl, share: float, guesses: int = 200, length: int = 20) -> None:
    """Guesses of which so many are right, evenly."""
    for number in range(guesses):
        made.guessed(length, right=int((number + 1) * share) > int(number * share))


def test_nothing_is_drafted_before_a_plain_request_was_measured() -> None:
    made = WindowControl(PRICES, 1_000)
    teach(made, 1.0)
    assert made.rows(20, 100) == 0


def test_text_that_repeats_gets_the_largest_window_and_prose_none() -> None:
    sure = control()
    teach(sure, 1.0)
    assert sure.rows(20, 100) == MAX_DRAFTED_ROWS
    assert sure.rows(20, 3) == 3, "no more than can be needed"
    prose = control()
    teach(prose, 0.05)
    assert prose.rows(20, 100) == 0


def test_a_few_wrong_guesses_close_what_many_right_ones_opened() -> None:
    made = control(NEAR_S)
    teach(made, 1.0)
    made.window_took(10, NEAR_S * 6)
    assert made.rows(20, 100) > 0
    teach(made, 0.0, guesses=12)
    assert made.rows(20, 100) == 0


def test_where_a_row_costs_as_much_as_a_request_nothing_is_gained() -> None:
    made = control(NEAR_S)
    teach(made, 0.9)
    for _ in range(3):
        made.window_took(4, 5 * NEAR_S)
    assert made.rows(20, 100) == 0


def test_the_gain_that_opens_is_larger_than_the_one_that_keeps_open() -> None:
    closed, opened = control(), control()
    for made in (closed, opened):
        teach(made, 1.0)
    assert opened.rows(20, 100) > 0
    for made in (closed, opened):
        teach(made, 0.9)
        made.window_took(1, FAR_S * 1.8)  # two requests' time for nearly two tokens: a gain of about 1.05
    assert closed.rows(20, 1) == 0
    assert opened.rows(20, 1) == 1


@given(
    share=st.floats(0, 1),
    row_share=st.floats(0, 1),
    kept=st.integers(1, 5_000),
    drafted=st.integers(0, 9_000),
)
def test_a_window_never_costs_more_a_token_than_the_limit(
    share: float, row_share: float, kept: int, drafted: int
) -> None:
    made = control(prices=RowPrices(1, kept, drafted, 1))
    teach(made, share)
    made.window_took(10, FAR_S * (1 + 10 * row_share))
    count = made.rows(40, 100)
    if not count:
        return
    likely = made._share(40)
    tokens = 1 + sum(likely**at for at in range(1, count + 1))
    assert 100 * (kept + count * drafted) <= MONEY_PERCENT * kept * tokens * (1 + 1e-9)
    assert may_draft(made.prices) or count < MAX_DRAFTED_ROWS
    assert tokens * FAR_S / (FAR_S + count * FAR_S * row_share) > 1, "and it takes less time"


@given(st.integers(0, 60), st.lists(st.integers(1, 20), max_size=20))
def test_rows_in_vain_never_exceed_the_allowance(allowance: int, wasted: list[int]) -> None:
    made = control(allowance=allowance)
    teach(made, 1.0)
    spent = 0
    for worst in wasted:
        count = made.rows(20, worst)
        made.in_vain(count)
        spent += count
    assert spent <= allowance


def test_a_debt_pauses_speculation_and_each_time_for_longer() -> None:
    made = control()
    teach(made, 1.0)
    pauses = []
    for _ in range(3):
        assert made.rows(20, 100) > 0
        made.round_ended(1, 20 * FAR_S)
        pause = 0
        while not made.rows(20, 100):
            made.plain_took(FAR_S)
            pause += 1
            assert pause < 1_000
        pauses.append(pause)
    assert pauses == [32, 64, 128]


def test_windows_fly_where_the_line_is_longer_than_the_work() -> None:
    made = control(FAR_S)
    teach(made, 1.0)
    made.window_took(10, FAR_S + 10 * 0.0005)
    assert made.further_rows(20, 15, 1, 100, 0.05) == MAX_DRAFTED_ROWS
    assert made.further_rows(20, 15, 1, 4, 0.05) == 4, "no more than can be needed"
    assert not made.further_rows(20, 15, 0, 100, 0.05), "the first window is no further one"
    assert not made.further_rows(20, 15, MAX_FLYING, 100, 0.05)
    assert not made.further_rows(20, 15, 1, 100, None), "how long the line is must be known"
    near = control(NEAR_S)
    teach(near, 1.0)
    near.window_took(10, NEAR_S + 10 * 0.001)
    assert not near.further_rows(20, 15, 1, 100, 0.0005)
    unsure = control(FAR_S)
    teach(unsure, 0.8)
    assert not unsure.further_rows(20, 15, 1, 100, 0.05)
    poor = control(FAR_S, allowance=20)
    teach(poor, 1.0)
    assert poor.further_rows(20, 15, 1, 100, 0.05) <= 5


@pytest.mark.parametrize("seed", range(5))
def test_on_text_with_chance_hits_the_modelled_time_is_never_much_more_than_plain(seed: int) -> None:
    """Guesses right one time in five, whatever the match promises: few windows are opened, and they cost little."""
    chance = random.Random(seed)
    made = control(FAR_S, allowance=allowed_in_vain(600))
    row_s, spent_s, tokens = 0.006, 0.0, 0
    while tokens < 600:
        length = chance.choice([2, 2, 3, 5])
        count = made.rows(length, 600 - tokens)
        if not count:
            made.plain_took(FAR_S)
            made.guessed(length, right=chance.random() < 0.2)
            spent_s, tokens = spent_s + FAR_S, tokens + 1
            continue
        took_s = FAR_S + count * row_s
        made.window_took(count, took_s)
        brought = 1
        while brought <= count and chance.random() < 0.2:
            made.guessed(length, right=True)
            brought += 1
        made.guessed(length, right=False)
        made.in_vain(count - brought + 1)
        made.round_ended(brought, took_s)
        spent_s, tokens = spent_s + took_s, tokens + brought
    assert spent_s / tokens <= FAR_S * 1.01, f"seed {seed}"
