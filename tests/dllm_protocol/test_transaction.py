"""Transactions: signed for one chain, one account, one place in order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.actions import Transfer
from dllm_protocol.address import address_of
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.hashing import sha256
from dllm_protocol.signing import SeedSigner
from dllm_protocol.transaction import (
    MAX_ACTIONS,
    MAX_MEMO_BYTES,
    Transaction,
    TransactionBody,
    make_body,
    sign_transaction,
    signature_fits_in,
    transaction_hash,
)

KEY = SeedSigner(b"k" * 32)
OTHER = SeedSigner(b"o" * 32)
ACCOUNT = address_of(KEY.public_key)
BODY = make_body("chain-1", ACCOUNT, KEY.public_key, 3, [Transfer(b"r" * 20, 7)], fee_udllm=9, memo="hi")
SIGNED = sign_transaction(KEY, BODY)


def test_a_signed_transaction_fits_its_key() -> None:
    assert SIGNED.signature_fits
    assert not SIGNED.by_chat_key
    assert Transaction.decode(SIGNED.encode()) == SIGNED


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": "chain-2"},
        {"account": b"a" * 20},
        {"public_key": OTHER.public_key},
        {"sequence": 4},
        {"fee_udllm": 10},
        {"timeout_height": 1},
        {"memo": "ho"},
        {"actions": (Transfer(b"r" * 20, 8),)},
        {"actions": BODY.actions * 2},
    ],
)
def test_a_signature_is_for_this_body_only(change: dict[str, object]) -> None:
    body = replace(BODY, **change)  # type: ignore[arg-type]  # fields by name
    assert not replace(SIGNED, body=body).signature_fits


@pytest.mark.parametrize("memo", ["", "hi", "m" * MAX_MEMO_BYTES])
def test_the_signature_fits_the_bytes_as_they_came(memo: str) -> None:
    signed = sign_transaction(KEY, replace(BODY, memo=memo))
    assert signature_fits_in(signed.encode(), signed)
    forged = replace(signed, signature=sign_transaction(OTHER, signed.body).signature)
    assert not signature_fits_in(forged.encode(), forged)


def test_every_flipped_byte_is_refused_or_breaks_the_signature() -> None:
    raw = SIGNED.encode()
    for position in range(len(raw)):
        for bit in range(8):
            flipped = bytearray(raw)
            flipped[position] ^= 1 << bit
            try:
                decoded = Transaction.decode(bytes(flipped))
            except MalformedBytes:
                continue
            assert not decoded.signature_fits, (position, bit)


def test_another_key_than_the_accounts_is_a_chat_key() -> None:
    body = replace(BODY, public_key=OTHER.public_key)
    signed = sign_transaction(OTHER, body)
    assert signed.signature_fits
    assert signed.by_chat_key


def test_the_hash_is_plain_sha256_as_cometbft_indexes_it() -> None:
    assert transaction_hash(SIGNED.encode()) == sha256(SIGNED.encode())


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"version": 2},
        {"actions": ()},
        {"actions": BODY.actions * (MAX_ACTIONS + 1)},
        {"memo": "m" * (MAX_MEMO_BYTES + 1)},
        {"memo": "esc\x1b[0m"},
        {"chain_id": ""},
        {"chain_id": "c" * 51},
        {"account": b"a" * 19},
        {"actions": (BODY,)},
    ],
)
def test_a_body_outside_its_bounds_is_not_written(change: dict[str, object]) -> None:
    with pytest.raises(MalformedBytes):
        replace(BODY, **change).encode()  # type: ignore[arg-type]  # fields by name


def test_a_body_without_a_version_is_not_read() -> None:
    raw = BODY.encode()
    assert raw[:2] == b"\x08\x01"
    with pytest.raises(MalformedBytes, match="version"):
        TransactionBody.decode(raw[2:])
