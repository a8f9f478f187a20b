"""Refusals: each with its own number, name and words."""

from __future__ import annotations

import pytest

from dllm_protocol import refusals
from dllm_protocol.errors import TransactionRefused
from dllm_protocol.refusals import REFUSALS, refusal_from_code

NUMBERS = {
    2: "MalformedTransaction",
    3: "UnknownFieldInTransaction",
    4: "WrongChain",
    5: "BadSignature",
    6: "WrongSequence",
    7: "SequenceGap",
    8: "Expired",
    9: "FeeTooLow",
    10: "InsufficientFunds",
    11: "TooLarge",
    12: "ChatKeyNotAllowed",
    13: "ChatKeyCapExceeded",
    20: "NotAuthorised",
    21: "BadValue",
    22: "AlreadyExists",
    30: "UnknownModel",
    31: "UnknownProvider",
    32: "UnknownOffer",
    33: "BondTooSmall",
    34: "PriceAboveReserve",
    35: "NotContradictory",
    40: "NoRoute",
    41: "UnknownSession",
    42: "SessionClosed",
    43: "VoucherNotHigher",
    44: "VoucherForAnotherSession",
    45: "VoucherForAnotherRoute",
    46: "DepositExceeded",
    47: "BadVoucherSignature",
    48: "VoucherMispriced",
    49: "GraceNotOver",
    50: "BadAck",
    60: "UnknownValidator",
    61: "StakeTooSmall",
    62: "LastValidator",
    63: "ValidatorJailed",
    64: "BadConsensusKey",
    65: "OneSeat",
}


def test_refusals_keep_their_numbers() -> None:
    assert {number: one.__name__ for number, one in REFUSALS.items()} == NUMBERS
    for name in NUMBERS.values():
        assert getattr(refusals, name).__name__ == name


def test_the_modules_picture_shows_every_refusal() -> None:
    for number, name in NUMBERS.items():
        assert f"{name} {number}" in (refusals.__doc__ or "")


def test_codes_are_distinct_and_read_like_names() -> None:
    codes = [one.code for one in REFUSALS.values()]
    assert len(set(codes)) == len(codes)
    assert refusals.WrongSequence.code == "E_TX_WRONG_SEQUENCE"
    assert {one.exit_code for one in REFUSALS.values()} == {5}


@pytest.mark.parametrize("number", sorted(NUMBERS))
def test_a_results_code_and_log_become_the_error_again(number: int) -> None:
    error = refusal_from_code(number, "words")
    assert type(error).__name__ == NUMBERS[number]
    assert (error.abci_code, error.message) == (number, "words")


def test_an_unknown_code_is_a_plain_refusal() -> None:
    assert type(refusal_from_code(999, "words")) is TransactionRefused
