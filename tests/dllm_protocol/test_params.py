"""Fees by weight."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.actions import ACTION_NUMBERS, Heartbeat, RegisterModel, Transfer
from dllm_protocol.address import address_of
from dllm_protocol.encoding import Record
from dllm_protocol.params import (
    DEFAULT_FEES,
    NETWORK_PARAMS,
    UNLISTED_WEIGHT,
    FeeSchedule,
    least_fee,
    weight_of,
)
from dllm_protocol.signing import SeedSigner
from dllm_protocol.transaction import Transaction, make_body, sign_transaction
from tests.vectors.record_formats import MANIFEST

KEY = SeedSigner(b"k" * 32)


def transaction(*actions: Record) -> Transaction:
    account = address_of(KEY.public_key)
    return sign_transaction(KEY, make_body("c-1", account, KEY.public_key, 0, actions, fee_udllm=0))


def test_weight_is_base_and_bytes_and_actions() -> None:
    made = transaction(Transfer(b"r" * 20, 1), Heartbeat(b"p" * 20))
    assert weight_of(DEFAULT_FEES, made, 300) == 1000 + 2 * 300 + 1000 + 1000


def test_an_action_that_is_not_listed_is_heavy() -> None:
    bare = FeeSchedule(0, 0, (), 1000)
    assert weight_of(bare, transaction(Transfer(b"r" * 20, 1)), 300) == UNLISTED_WEIGHT


@pytest.mark.parametrize(("price", "fee"), [(0, 0), (1, 1), (499, 1), (500, 1), (501, 2), (1000, 2)])
def test_the_least_fee_is_rounded_up_once(price: int, fee: int) -> None:
    schedule = FeeSchedule(2, 0, (), price)
    made = transaction(Transfer(b"r" * 20, 1))
    schedule = replace(schedule, action_weights=tuple(_weightless()))
    assert least_fee(schedule, made, 300) == fee


def _weightless() -> list:  # type: ignore[type-arg]  # of ActionWeight
    return [replace(entry, weight=0) for entry in DEFAULT_FEES.action_weights]


def test_every_action_has_a_weight_of_its_own() -> None:
    assert [entry.action for entry in DEFAULT_FEES.action_weights] == sorted(ACTION_NUMBERS)


def test_a_bigger_action_costs_more() -> None:
    small, big = transaction(Transfer(b"r" * 20, 1)), transaction(RegisterModel(MANIFEST))
    assert least_fee(DEFAULT_FEES, big, 500) > least_fee(DEFAULT_FEES, small, 500)


def test_evidence_outlives_trust_and_bond_outlives_evidence() -> None:
    params = NETWORK_PARAMS
    assert params.unbonding_ms > params.evidence_age_ms > params.trusting_period_ms
