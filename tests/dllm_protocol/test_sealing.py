"""Sealed streams open in order, once, unchanged, and for nobody else."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.sealing import PAD_BYTES, SealBroken, SealedStream, SealingKey


def make_streams() -> tuple[SealedStream, SealedStream]:
    client, provider = SealingKey(b"\1" * 32), SealingKey(b"\2" * 32)
    return client.client_stream(provider.public_key), provider.provider_stream(client.public_key)


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_frames_open_in_the_order_in_which_they_were_sealed(messages: list[bytes]) -> None:
    client, provider = make_streams()
    assert [provider.open(client.seal(message)) for message in messages] == messages
    assert [client.open(provider.seal(message)) for message in messages] == messages


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 7))
def test_a_changed_bit_does_not_open(message: bytes, at: int, bit: int) -> None:
    client, provider = make_streams()
    frame = bytearray(client.seal(message))
    frame[at % len(frame)] ^= 1 << bit
    with pytest.raises(SealBroken):
        provider.open(bytes(frame))


def test_a_skipped_or_reflected_frame_does_not_open() -> None:
    client, provider = make_streams()
    client.seal(b"lost")
    with pytest.raises(SealBroken):
        provider.open(client.seal(b"next"))
    client, _ = make_streams()
    with pytest.raises(SealBroken):
        client.open(client.seal(b"mine"))


def test_lengths_are_hidden_within_a_block() -> None:
    client, _ = make_streams()
    sizes = {len(client.seal(bytes(size))) for size in range(PAD_BYTES - 1)}
    assert len(sizes) == 1


def test_a_first_message_is_for_one_key() -> None:
    sender, recipient, other = (SealingKey(bytes([n]) * 32) for n in (1, 2, 3))
    sealed = sender.seal_to(recipient.public_key, b"hello")
    assert recipient.open_from(sealed) == (sender.public_key, b"hello")
    with pytest.raises(SealBroken):
        other.open_from(sealed)
    with pytest.raises(SealBroken):
        recipient.open_from(sealed[:-1])
    with pytest.raises(SealBroken):
        recipient.open_from(b"")


def test_a_key_that_gives_no_secret_is_refused() -> None:
    with pytest.raises(SealBroken):
        SealingKey(b"\1" * 32).client_stream(bytes(32))


def test_keys_show_and_give_away_nothing() -> None:
    key = SealingKey(b"\7" * 32)
    assert (b"\7" * 32).hex() not in repr(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)
