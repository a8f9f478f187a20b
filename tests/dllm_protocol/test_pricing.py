"""Rows, prices and the community's share."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.pricing import (
    NO_ROWS,
    PPM,
    RowCounts,
    RowPrices,
    affordable_payments,
    client_price,
    cost_of_rows,
    reference_cost,
)

PRICES = st.builds(RowPrices, *[st.integers(0, 10**6)] * 4)
ROWS = st.builds(RowCounts, *[st.integers(0, 10**6)] * 4)
PAYMENTS = st.integers(0, 10**15)
SHARES = st.integers(0, PPM - 1)


def test_ninety_per_cent_go_to_owners() -> None:
    assert [client_price(payments, 100_000) for payments in (0, 1, 9, 10, 900)] == [0, 2, 10, 12, 1000]


@given(PAYMENTS, SHARES)
def test_the_clients_price_is_the_exact_quotient_rounded_up(payments: int, share: int) -> None:
    assert client_price(payments, share) == ceil(payments / (1 - Fraction(share, PPM)))


@given(PAYMENTS, SHARES)
def test_what_is_affordable_is_the_most_that_is(price: int, share: int) -> None:
    most = affordable_payments(price, share)
    assert client_price(most, share) <= price < client_price(most + 1, share)


@given(PAYMENTS, PAYMENTS, SHARES)
def test_the_communitys_part_never_shrinks_as_payments_grow(first: int, more: int, share: int) -> None:
    before = client_price(first, share) - first
    assert client_price(first + more, share) - (first + more) >= before >= 0


@given(PRICES, ROWS)
def test_rows_cost_their_exact_sum_rounded_up_once(prices: RowPrices, rows: RowCounts) -> None:
    exact = Fraction(
        prices.prompt_udllm * rows.prompt
        + prices.kept_udllm * rows.kept
        + prices.drafted_udllm * rows.drafted
        + prices.replayed_udllm * rows.replayed,
        1000,
    )
    assert cost_of_rows(prices, rows) == ceil(exact)


@given(PRICES, ROWS, ROWS)
def test_cumulative_cost_never_falls(prices: RowPrices, rows: RowCounts, more: RowCounts) -> None:
    later = rows.plus(more)
    assert later.covers(rows)
    assert cost_of_rows(prices, later) >= cost_of_rows(prices, rows)
    assert later.total == rows.total + more.total


@given(PRICES, PRICES)
def test_prices_are_within_a_limit_only_if_each_is(prices: RowPrices, limit: RowPrices) -> None:
    pairs = zip(_all(prices), _all(limit), strict=True)
    assert prices.within(limit) == all(price <= most for price, most in pairs)


def _all(prices: RowPrices) -> tuple[int, ...]:
    return (prices.prompt_udllm, prices.kept_udllm, prices.drafted_udllm, prices.replayed_udllm)


def test_no_rows_cost_nothing_and_cover_only_nothing() -> None:
    assert cost_of_rows(RowPrices(9, 9, 9, 9), NO_ROWS) == 0
    assert not NO_ROWS.covers(RowCounts(0, 0, 1, 0))


def test_offers_are_compared_by_prompt_and_kept_rows() -> None:
    assert reference_cost(RowPrices(3, 50, 700, 9000)) == 53
