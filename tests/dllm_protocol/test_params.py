"""Fees by weight."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.actions import (
    ACTION_NUMBERS,
    CloseSession,
    Heartbeat,
    OpenSession,
    RegisterModel,
    SetOffer,
    Transfer,
    WithdrawOffer,
)
from dllm_protocol.address import address_of
from dllm_protocol.encoding import Record
from dllm_protocol.params import (
    DEFAULT_FEES,
    NETWORK_PARAMS,
    UNLISTED_WEIGHT,
    FeeSchedule,
    least_fee,
    weighed_models,
    weight_of,
)
from dllm_protocol.pricing import RowPrices
from dllm_protocol.signing import SeedSigner
from dllm_protocol.transaction import Transaction, make_body, sign_transaction
from tests.vectors.record_formats import MANIFEST

KEY = SeedSigner(b"k" * 32)
NUMBERS = {action_type: number for number, action_type in ACTION_NUMBERS.items()}


def transaction(*actions: Record) -> Transaction:
    account = address_of(KEY.public_key)
    return sign_transaction(KEY, make_body("c-1", account, KEY.public_key, 0, actions, fee_udllm=0))


def test_weight_is_base_and_bytes_and_actions() -> None:
    made = transaction(Transfer(b"r" * 20, 1), Heartbeat(b"p" * 20))
    assert weight_of(DEFAULT_FEES, made, 300, no_book_is_asked) == 1000 + 2 * 300 + 1000 + 1000


def no_book_is_asked(model: str) -> int:
    raise AssertionError(f"the weight of this depends on no book, {model} was asked")


OPENING = OpenSession("guide-1", b"k" * 32, RowPrices(1, 1, 1, 1), (), 5)
DEAR = (
    OPENING,
    SetOffer(b"p" * 20, "guide-1", 0, 4, RowPrices(1, 1, 1, 1), 2),
    WithdrawOffer(b"p" * 20, "guide-1"),
)


@given(
    st.lists(st.sampled_from([*DEAR, Heartbeat(b"p" * 20)]), min_size=1, max_size=8),
    st.integers(0, 1 << 16),
    st.integers(1, 1 << 10),
)
def test_what_works_through_a_book_weighs_by_its_offers(
    actions: list[Record], offers: int, more: int
) -> None:
    made = transaction(*actions)
    light = weight_of(DEFAULT_FEES, made, 300, lambda _: offers)
    heavy = weight_of(DEFAULT_FEES, made, 300, lambda _: offers + more)
    each = {entry.action: entry.weight_per_offer for entry in DEFAULT_FEES.action_weights}
    steps = sum(each[NUMBERS[type(one)]] for one in actions)
    assert heavy - light == more * steps
    assert (steps > 0) == any(one in DEAR for one in actions)


def test_every_model_that_is_weighed_by_is_named_and_no_other() -> None:
    other = replace(OPENING, model="other")
    assert weighed_models(DEFAULT_FEES, (*DEAR, other, Heartbeat(b"p" * 20))) == {"guide-1", "other"}
    assert (
        weighed_models(DEFAULT_FEES, (Heartbeat(b"p" * 20), CloseSession(b"s" * 32, None, (), ()))) == set()
    )


def test_a_chain_from_before_books_were_weighed_asks_for_none() -> None:
    flat = replace(
        DEFAULT_FEES,
        action_weights=tuple(replace(one, weight_per_offer=0) for one in DEFAULT_FEES.action_weights),
    )
    assert FeeSchedule.decode(flat.encode()) == flat
    assert weighed_models(flat, DEAR) == set()
    assert weight_of(flat, transaction(OPENING), 300, no_book_is_asked) == 1000 + 2 * 300 + 5000


def test_an_action_that_is_not_listed_is_heavy() -> None:
    bare = FeeSchedule(0, 0, (), 1000)
    assert weight_of(bare, transaction(Transfer(b"r" * 20, 1)), 300, no_book_is_asked) == UNLISTED_WEIGHT


@pytest.mark.parametrize(("price", "fee"), [(0, 0), (1, 1), (499, 1), (500, 1), (501, 2), (1000, 2)])
def test_the_least_fee_is_rounded_up_once(price: int, fee: int) -> None:
    schedule = FeeSchedule(2, 0, (), price)
    made = transaction(Transfer(b"r" * 20, 1))
    schedule = replace(schedule, action_weights=tuple(_weightless()))
    assert least_fee(schedule, made, 300, no_book_is_asked) == fee


def _weightless() -> list:  # type: ignore[type-arg]  # of ActionWeight
    return [replace(entry, weight=0) for entry in DEFAULT_FEES.action_weights]


def test_every_action_has_a_weight_of_its_own() -> None:
    assert [entry.action for entry in DEFAULT_FEES.action_weights] == sorted(ACTION_NUMBERS)


def test_a_bigger_action_costs_more() -> None:
    small, big = transaction(Transfer(b"r" * 20, 1)), transaction(RegisterModel(MANIFEST))
    fees = [least_fee(DEFAULT_FEES, one, 500, no_book_is_asked) for one in (small, big)]
    assert fees == sorted(set(fees))


def test_evidence_outlives_trust_and_bond_outlives_evidence() -> None:
    params = NETWORK_PARAMS
    assert params.unbonding_ms > params.evidence_age_ms > params.trusting_period_ms
