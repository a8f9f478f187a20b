"""Sealed streams open in order, once, unchanged, and for nobody else."""

from __future__ import annotations

import pickle
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    sodium_pad,
    sodium_unpad,
)
from nacl.exceptions import CryptoError

from dllm_protocol.sealing import PAD_BYTES, STATE_BYTES, SealBroken, SealedStream, SealingKey, unpadded


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


SEND_KEY, RECEIVE_KEY = b"\5" * 32, b"\6" * 32


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4))
def test_frames_are_those_of_libsodium(messages: list[bytes]) -> None:
    """Another implementation of cipher and padding makes the same frames, and opens them."""
    stream, other = SealedStream(SEND_KEY, RECEIVE_KEY), SealedStream(RECEIVE_KEY, SEND_KEY)
    for n, message in enumerate(messages):
        nonce = n.to_bytes(12, "little")
        padded = sodium_pad(message, PAD_BYTES)
        theirs = crypto_aead_chacha20poly1305_ietf_encrypt(padded, None, nonce, SEND_KEY)
        ours = stream.seal(message)
        assert ours == theirs
        opened = crypto_aead_chacha20poly1305_ietf_decrypt(ours, None, nonce, SEND_KEY)
        assert sodium_unpad(opened, PAD_BYTES) == message
        assert other.open(theirs) == message


def test_frames_of_every_length_around_a_block_are_those_of_libsodium() -> None:
    for size in range(3 * PAD_BYTES + 2):
        message = b"\x80\x00" * size
        padded = sodium_pad(message[:size], PAD_BYTES)
        theirs = crypto_aead_chacha20poly1305_ietf_encrypt(padded, None, bytes(12), SEND_KEY)
        assert SealedStream(SEND_KEY, RECEIVE_KEY).seal(message[:size]) == theirs
        assert SealedStream(RECEIVE_KEY, SEND_KEY).open(theirs) == message[:size]


def padded_endings() -> st.SearchStrategy[bytes]:
    """Bytes that end like padding, or nearly so."""
    few = st.sampled_from((b"\x00", b"\x80", b"\x01", b"\xff"))
    ending = st.lists(few, max_size=6).map(b"".join)
    return st.builds(
        lambda head, end, zeros: head + end + bytes(zeros),
        st.binary(max_size=140),
        ending,
        st.integers(0, PAD_BYTES + 3),
    )


@given(padded_endings() | st.binary(max_size=150))
@example(b"")
@example(b"\x80")
@example(bytes(PAD_BYTES))
@example(bytes(2 * PAD_BYTES))
@example(b"\x80" + bytes(PAD_BYTES - 2))
@example(b"\x80" + bytes(PAD_BYTES - 1))
@example(b"\x80" + bytes(PAD_BYTES))
@example(b"\x80" + bytes(2 * PAD_BYTES - 1))
@example(bytes(PAD_BYTES - 1) + b"\x80")
@example(bytes(PAD_BYTES - 2) + b"\x80\x01")
@example(bytes(PAD_BYTES - 2) + b"\x80\x80")
@example(b"x" * PAD_BYTES)
def test_padding_is_refused_exactly_where_libsodium_refuses_it(padded: bytes) -> None:
    try:
        plain = sodium_unpad(padded, PAD_BYTES)
    except CryptoError:
        with pytest.raises(ValueError, match="padding"):
            unpadded(padded)
    else:
        assert unpadded(padded) == plain


@given(padded_endings())
def test_a_frame_opens_exactly_where_libsodium_finds_its_padding_right(padded: bytes) -> None:
    frame = crypto_aead_chacha20poly1305_ietf_encrypt(padded, None, bytes(12), SEND_KEY)
    stream = SealedStream(RECEIVE_KEY, SEND_KEY)
    try:
        plain = sodium_unpad(padded, PAD_BYTES)
    except CryptoError:
        with pytest.raises(SealBroken):
            stream.open(frame)
        assert repr(stream).endswith("received=0)")
    else:
        assert stream.open(frame) == plain


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17])
def test_what_is_too_short_for_a_frame_does_not_open(size: int) -> None:
    with pytest.raises(SealBroken):
        make_streams()[0].open(bytes(size))


def test_a_stream_goes_on_behind_a_frame_that_did_not_open() -> None:
    client, provider = make_streams()
    frame = client.seal(b"first")
    with pytest.raises(SealBroken, match="frame 0 does not open: altered, replayed or out of order"):
        provider.open(frame[:-1])
    assert provider.open(frame) == b"first"
    with pytest.raises(SealBroken, match="frame 1"):
        provider.open(frame)


def test_streams_show_and_give_away_nothing() -> None:
    stream = SealedStream(SEND_KEY, RECEIVE_KEY)
    stream.seal(b"secret words")
    assert repr(stream) == "SealedStream(sent=1, received=0)"
    with pytest.raises(TypeError):
        pickle.dumps(stream)


FRAMES = st.lists(st.binary(max_size=100), max_size=4)


@given(FRAMES, FRAMES, FRAMES)
def test_a_stream_that_was_handed_over_goes_on_where_it_was(
    there: list[bytes], back: list[bytes], after: list[bytes]
) -> None:
    client, provider = make_streams()
    assert [provider.open(client.seal(message)) for message in there] == there
    assert [client.open(provider.seal(message)) for message in back] == back
    taken = SealedStream.taken_over(client.hand_over())
    assert repr(taken) == f"SealedStream(sent={len(there)}, received={len(back)})"
    assert [provider.open(taken.seal(message)) for message in after] == after
    assert [taken.open(provider.seal(message)) for message in after] == after
    both = SealedStream.taken_over(provider.hand_over())
    assert [both.open(taken.seal(message)) for message in after] == after
    assert [taken.open(both.seal(message)) for message in after] == after


def test_what_was_sealed_before_a_handover_opens_behind_it_and_once() -> None:
    client, provider = make_streams()
    frames = [client.seal(b"first"), client.seal(b"second")]
    assert provider.open(frames[0]) == b"first"
    taken = SealedStream.taken_over(provider.hand_over())
    with pytest.raises(SealBroken, match="frame 1"):
        taken.open(frames[0])
    assert taken.open(frames[1]) == b"second"


def test_whoever_handed_a_stream_over_can_do_nothing_more_with_it() -> None:
    """Two that sealed on would use one nonce for two frames."""
    client, provider = make_streams()
    state, frame = client.hand_over(), provider.seal(b"next")
    with pytest.raises(OverflowError):
        client.seal(b"more")
    with pytest.raises(OverflowError):
        client.open(frame)
    with pytest.raises(struct.error):
        client.hand_over()
    assert SealedStream.taken_over(state).open(frame) == b"next"


@pytest.mark.parametrize("size", [0, STATE_BYTES - 1, STATE_BYTES + 1])
def test_a_state_of_another_length_is_none(size: int) -> None:
    with pytest.raises(ValueError, match=f"a stream's state has {size} bytes, not {STATE_BYTES}"):
        SealedStream.taken_over(bytes(size))


def test_a_stream_shows_no_key_before_or_behind_a_handover() -> None:
    stream = SealedStream(SEND_KEY, RECEIVE_KEY)
    stream.seal(b"one")
    state = stream.hand_over()
    assert SEND_KEY in state and RECEIVE_KEY in state
    taken = SealedStream.taken_over(state)
    assert repr(taken) == "SealedStream(sent=1, received=0)"
    for key in (SEND_KEY, RECEIVE_KEY):
        assert key not in stream._keys
        assert key.hex() not in repr(stream) and repr(key) not in repr(stream)
    with pytest.raises(TypeError):
        pickle.dumps(taken)
