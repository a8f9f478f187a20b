"""Signatures are for one purpose, and keys do not leak."""

from __future__ import annotations

import pickle

import pytest

from dllm_protocol.hashing import Tag
from dllm_protocol.signing import SeedSigner, sign_tagged, verify, verify_tagged

SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
KEY = SeedSigner(SEED)


def test_keys_and_signatures_are_those_of_rfc_8032() -> None:
    """Section 7.1, test 1: the empty message."""
    assert KEY.public_key.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert KEY.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


def test_a_signature_fits_its_purpose_its_payload_and_its_key_only() -> None:
    signature = sign_tagged(KEY, Tag.VOUCHER, b"payload")
    assert verify_tagged(KEY.public_key, Tag.VOUCHER, b"payload", signature)
    for tag in Tag:
        assert verify_tagged(KEY.public_key, tag, b"payload", signature) == (tag is Tag.VOUCHER)
    assert not verify_tagged(KEY.public_key, Tag.VOUCHER, b"payloae", signature)
    assert not verify_tagged(SeedSigner(b"o" * 32).public_key, Tag.VOUCHER, b"payload", signature)
    assert not verify(KEY.public_key, b"payload", signature)


@pytest.mark.parametrize(("key", "signature"), [(31, 64), (33, 64), (0, 64), (32, 63), (32, 65), (32, 0)])
def test_odd_lengths_do_not_verify(key: int, signature: int) -> None:
    assert not verify(bytes(key), b"m", bytes(signature))


@pytest.mark.parametrize("weak", [bytes(32), b"\x01" + bytes(31)])
def test_keys_of_small_order_do_not_verify(weak: bytes) -> None:
    assert not verify(weak, b"m", b"\x01" + bytes(63))


def test_a_signature_with_an_unreduced_scalar_does_not_verify() -> None:
    order = (1 << 252) + 27742317777372353535851937790883648493
    signature = KEY.sign(b"m")
    scalar = int.from_bytes(signature[32:], "little") + order
    assert not verify(KEY.public_key, b"m", signature[:32] + scalar.to_bytes(32, "little"))


def test_a_signer_shows_and_pickles_no_secret() -> None:
    assert SEED.hex() not in repr(KEY)
    assert KEY.public_key.hex() in repr(KEY)
    with pytest.raises(TypeError):
        pickle.dumps(KEY)
