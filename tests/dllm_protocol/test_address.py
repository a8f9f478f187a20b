"""Addresses: bech32 as in BIP-173, for one chain kind only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.address import BadAddress, address_of, decode_address, encode_address, provider_id_of
from dllm_protocol.hashing import sha256

ADDRESS = bytes(range(20))
TEXT = encode_address("dllm", ADDRESS)


def test_an_address_is_the_keys_hash_cut_to_twenty_bytes() -> None:
    assert address_of(b"k" * 32) == sha256(b"k" * 32)[:20]


def test_the_text_is_bech32() -> None:
    """A valid string of BIP-173, whose 32 data characters are the charset in order."""
    text, data = "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw", "00443214c74254b635cf84653a56d7c675be77df"
    assert decode_address(text, "abcdef").hex() == data
    assert encode_address("abcdef", bytes.fromhex(data)) == text


@given(st.binary(min_size=20, max_size=20), st.sampled_from(["dllm", "local", "dllmprov"]))
def test_an_address_comes_back(address: bytes, prefix: str) -> None:
    text = encode_address(prefix, address)
    assert decode_address(text, prefix) == address
    assert decode_address(text.upper(), prefix) == address


def test_a_letter_that_only_looks_like_one_of_the_charset_is_refused() -> None:
    with_k = next(
        text for number in range(256) if "k" in (text := encode_address("dllm", bytes([number]) * 20))[5:]
    )
    kelvin = with_k.upper().replace("K", "\u212a")
    assert kelvin.lower() == with_k
    with pytest.raises(BadAddress, match="letter"):
        decode_address(kelvin, "dllm")


def test_every_single_typo_is_noticed() -> None:
    for position in range(len("dllm1"), len(TEXT)):
        for character in "qpzry9x8gf2tvdw0s3jn54khce6mua7l":
            if character != TEXT[position]:
                with pytest.raises(BadAddress, match="typo"):
                    decode_address(TEXT[:position] + character + TEXT[position + 1 :], "dllm")


def test_two_swapped_neighbours_are_noticed() -> None:
    for position in range(len("dllm1"), len(TEXT) - 1):
        first, second = TEXT[position], TEXT[position + 1]
        if first != second:
            with pytest.raises(BadAddress):
                decode_address(TEXT[:position] + second + first + TEXT[position + 2 :], "dllm")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no prefix"),
        ("hello", "no prefix"),
        ("1qqqqqqq", "no prefix"),
        (TEXT[:-1], "typo"),
        (TEXT[:-1] + "b", "'b' never stands"),
        (TEXT[:8] + TEXT[8:].upper(), "lower case"),
        (TEXT.replace("dllm", "local"), "'local', this chain uses 'dllm'"),
        ("dllm1", "typo"),
        ("dllm1ü", "never stands"),
    ],
)
def test_text_that_is_no_address_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(BadAddress, match=words):
        decode_address(text, "dllm")


@pytest.mark.parametrize("size", [0, 19, 21, 32])
def test_an_address_has_twenty_bytes(size: int) -> None:
    with pytest.raises(BadAddress, match=str(size)):
        encode_address("dllm", bytes(size))


def test_a_providers_id_follows_from_owner_and_operator_in_this_order() -> None:
    one, two = b"a" * 20, b"b" * 20
    assert len({provider_id_of(one, two), provider_id_of(two, one), provider_id_of(one, one)}) == 3
    assert len(provider_id_of(one, two)) == 20
