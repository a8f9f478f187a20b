"""Vouchers and acks: bound to session, route and number, and to their keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.errors import MalformedBytes
from dllm_protocol.hashing import Tag
from dllm_protocol.signing import sign_tagged
from dllm_protocol.voucher import SignedAck, SignedVoucher, WindowAck, contradict, sign_ack
from tests.vectors.record_formats import ACK, CLIENT, OTHER_ACK, SERVICE, SESSION_KEY, VOUCHER


def test_signatures_fit_their_keys_and_no_others() -> None:
    assert VOUCHER.signed_by(SESSION_KEY.public_key)
    assert not VOUCHER.signed_by(CLIENT.public_key)
    assert ACK.signed_by(SERVICE.public_key)
    assert not ACK.signed_by(SESSION_KEY.public_key)


def test_a_signature_for_another_purpose_does_not_fit() -> None:
    other = sign_tagged(SESSION_KEY, Tag.WINDOW_ACK, VOUCHER.voucher.encode())
    assert not SignedVoucher(VOUCHER.voucher, other).signed_by(SESSION_KEY.public_key)
    other = sign_tagged(SERVICE, Tag.VOUCHER, ACK.ack.encode())
    assert not SignedAck(ACK.ack, other).signed_by(SERVICE.public_key)


def test_every_flipped_byte_of_a_voucher_is_noticed() -> None:
    raw = VOUCHER.encode()
    for position in range(len(raw)):
        flipped = bytearray(raw)
        flipped[position] ^= 1
        try:
            decoded = SignedVoucher.decode(bytes(flipped))
        except MalformedBytes:
            continue
        assert not decoded.signed_by(SESSION_KEY.public_key), position


def test_every_flipped_byte_of_an_ack_is_noticed() -> None:
    raw = ACK.encode()
    for position in range(len(raw)):
        flipped = bytearray(raw)
        flipped[position] ^= 1
        try:
            decoded = SignedAck.decode(bytes(flipped))
        except MalformedBytes:
            continue
        assert not decoded.signed_by(SERVICE.public_key), position


def test_payments_are_summed_over_legs() -> None:
    leg = VOUCHER.voucher.legs[0]
    doubled = replace(VOUCHER.voucher, legs=(leg, leg))
    assert doubled.payments_udllm == 2 * leg.cumulative_udllm


def test_a_voucher_has_a_leg() -> None:
    with pytest.raises(MalformedBytes, match="legs"):
        replace(VOUCHER.voucher, legs=()).encode()


def test_two_acks_of_one_number_contradict_if_they_differ() -> None:
    assert contradict(ACK.ack, OTHER_ACK.ack)
    assert not contradict(ACK.ack, ACK.ack)


@pytest.mark.parametrize(
    "change", [{"n": 4}, {"session": b"s" * 32}, {"provider": b"p" * 20}, {"chain_id": "c-2"}]
)
def test_acks_of_other_things_do_not_contradict(change: dict[str, object]) -> None:
    other: WindowAck = replace(OTHER_ACK.ack, **change)  # type: ignore[arg-type]  # fields by name
    assert not contradict(ACK.ack, other)
    assert sign_ack(SERVICE, other).signed_by(SERVICE.public_key)
