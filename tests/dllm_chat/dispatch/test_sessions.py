"""How much a session locks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_chat.dispatch.sessions import deposit_for
from dllm_protocol.errors import TransactionRefused


def test_a_deposit_has_room_for_several_answers_within_half_of_what_there_is() -> None:
    assert deposit_for(100, 1_000_000, 50) == 800
    assert deposit_for(100, 1_050, 50) == 500
    assert deposit_for(100, 160, 50) == 100


def test_too_little_for_one_answer_is_refused_with_all_three_amounts() -> None:
    with pytest.raises(TransactionRefused, match=r"cost 100 udllm and 50 udllm fees, spendable are 149"):
        deposit_for(100, 149, 50)


@given(st.integers(1, 10**9), st.integers(0, 10**12), st.integers(0, 10**6))
def test_a_deposit_covers_the_quote_and_never_more_than_there_is(
    cost: int, spendable: int, fees: int
) -> None:
    if spendable - fees < cost:
        with pytest.raises(TransactionRefused):
            deposit_for(cost, spendable, fees)
    else:
        assert cost <= deposit_for(cost, spendable, fees) <= spendable - fees
