"""The numbers of actions are given once and for all."""

from __future__ import annotations

import pytest

from dllm_protocol.actions import ACTION, ACTION_NUMBERS, Heartbeat, Transfer
from dllm_protocol.errors import MalformedBytes, UnknownField
from dllm_protocol.protobuf import bytes_field

NUMBERS = {
    1: "Transfer",
    2: "GrantChatKey",
    10: "RegisterModel",
    20: "RegisterProvider",
    21: "UpdateProvider",
    22: "BondProvider",
    23: "UnbondProvider",
    24: "SetOffer",
    25: "WithdrawOffer",
    26: "Heartbeat",
    27: "ReportContradiction",
    28: "SetHolding",
    29: "WithdrawHolding",
    30: "OpenSession",
    31: "TopUpSession",
    32: "ClaimVoucher",
    33: "CloseSession",
    40: "Stake",
    41: "Unstake",
}


def test_actions_keep_their_numbers() -> None:
    assert {number: one.__name__ for number, one in ACTION_NUMBERS.items()} == NUMBERS


def test_an_action_is_wrapped_under_its_number() -> None:
    beat = Heartbeat(b"p" * 20)
    wrapped = bytes_field(26, beat.encode())
    assert ACTION.pack(beat) == bytes([len(wrapped)]) + wrapped
    assert ACTION.unpack(wrapped) == beat


def test_an_action_without_content_is_still_told_by_its_number() -> None:
    with pytest.raises(MalformedBytes, match="recipient"):
        ACTION.unpack(bytes_field(1, b"", always=True))


def test_two_actions_in_one_place_are_refused() -> None:
    one = bytes_field(1, Transfer(b"r" * 20, 1).encode())
    with pytest.raises(MalformedBytes, match="2 alternatives"):
        ACTION.unpack(one + one)


def test_an_action_of_the_future_is_an_unknown_field() -> None:
    with pytest.raises(UnknownField, match="34"):
        ACTION.unpack(bytes_field(34, b"x"))
