"""Messages over a lane come whole, in order and unchanged, however the bytes were cut on their way."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.errors import ChannelRefused
from dllm_protocol.lane import (
    KIND_BF16,
    KIND_F32,
    KIND_HELLO,
    KIND_TOKEN,
    MAX_LANE_FRAME_BYTES,
    MAX_WIDTH,
    LaneMessage,
    LaneStream,
    token_body,
)
from dllm_protocol.messages import FORM_BF16, FORM_F32
from dllm_protocol.sealing import PAD_BYTES, SealBroken, SealedStream

ONE_KEY, OTHER_KEY = b"\5" * 32, b"\6" * 32
PREFIX_BYTES = 4
NUMBERS = st.integers(0, 2**32 - 1)
MESSAGES = st.lists(
    st.builds(
        LaneMessage,
        st.sampled_from((KIND_HELLO, KIND_F32, KIND_BF16, KIND_TOKEN)),
        NUMBERS,
        NUMBERS,
        st.binary(max_size=200),
    ),
    max_size=6,
)
CUTS = st.lists(st.integers(0, 2**16), max_size=12)


def streams() -> tuple[SealedStream, SealedStream]:
    """What both ends seal with."""
    return SealedStream(ONE_KEY, OTHER_KEY), SealedStream(OTHER_KEY, ONE_KEY)


def ends() -> tuple[LaneStream, LaneStream]:
    one, other = streams()
    return LaneStream(one), LaneStream(other)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The same bytes, cut at places that may fall together, so that a piece may be empty."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[first:end] for first, end in pairwise(places)]


def prefixed(sealed: bytes) -> bytes:
    return len(sealed).to_bytes(PREFIX_BYTES, "little") + sealed


@given(MESSAGES, CUTS)
def test_any_cut_of_the_bytes_gives_the_same_messages(messages: list[LaneMessage], cuts: list[int]) -> None:
    one, other = ends()
    for sender, receiver in ((one, other), (other, one)):
        data = b"".join(sender.pack(*message) for message in messages)
        assert [got for piece in pieces(data, cuts) for got in receiver.feed(piece)] == messages
        assert not receiver._buffer


@given(st.lists(st.integers(0, 300), min_size=1, max_size=4))
def test_byte_by_byte_a_message_comes_with_its_last_byte(sizes: list[int]) -> None:
    one, other = ends()
    for request, size in enumerate(sizes):
        data = one.pack(KIND_F32, request, 7, bytes(size))
        came = [other.feed(data[at : at + 1]) for at in range(len(data))]
        assert came[-1] == [LaneMessage(KIND_F32, request, 7, bytes(size))]
        assert not any(came[:-1])


@given(MESSAGES, CUTS)
def test_no_more_than_one_incomplete_frame_is_kept(messages: list[LaneMessage], cuts: list[int]) -> None:
    one, other = ends()
    frames = [one.pack(*message) for message in messages]
    data = b"".join(frames)
    fed, complete = 0, 0
    for piece in pieces(data, cuts):
        fed += len(piece)
        complete += len(other.feed(piece))
        begun = sum(map(len, frames[:complete]))
        assert other._buffer == data[begun:fed]
        assert len(other._buffer) < max(map(len, frames), default=1)


def test_a_frame_has_its_length_before_it_and_its_numbers_in_front() -> None:
    one, other = streams()
    data = LaneStream(one).pack(KIND_TOKEN, 0x01020304, 0x0A0B0C0D, b"body")
    assert int.from_bytes(data[:PREFIX_BYTES], "little") == len(data) - PREFIX_BYTES
    assert other.open(data[PREFIX_BYTES:]) == bytes.fromhex("03 04030201 0d0c0b0a") + b"body"


def test_a_form_is_the_kind_of_its_rows() -> None:
    assert (KIND_F32, KIND_BF16) == (FORM_F32, FORM_BF16)


def test_the_widest_row_goes_over_a_lane() -> None:
    one, other = ends()
    body = b"\x7f" * (4 * MAX_WIDTH)
    assert other.feed(one.pack(KIND_F32, 1, 2, body)) == [LaneMessage(KIND_F32, 1, 2, body)]


@pytest.mark.parametrize("length", [0, PAD_BYTES - 1, MAX_LANE_FRAME_BYTES + 1, 2**32 - 1])
def test_a_length_out_of_bounds_is_refused_before_anything_of_the_frame_has_come(length: int) -> None:
    _, other = ends()
    prefix = length.to_bytes(PREFIX_BYTES, "little")
    assert other.feed(prefix[:-1]) == []
    with pytest.raises(
        ChannelRefused, match=f"a frame of {length} bytes came over a lane, 64 to 262400 are taken"
    ):
        other.feed(prefix[-1:])


@pytest.mark.parametrize("length", [PAD_BYTES, MAX_LANE_FRAME_BYTES])
def test_a_length_at_a_bound_is_taken(length: int) -> None:
    _, other = ends()
    assert other.feed(prefixed(bytes(length))[:-1]) == []
    assert len(other._buffer) == PREFIX_BYTES + length - 1
    with pytest.raises(SealBroken):
        other.feed(bytes(1))


def test_a_bad_length_behind_a_good_frame_is_refused() -> None:
    one, other = ends()
    with pytest.raises(ChannelRefused, match="a frame of 1 bytes"):
        other.feed(one.pack(KIND_HELLO, 0, 0, b"") + (1).to_bytes(PREFIX_BYTES, "little"))


@given(st.binary(max_size=100), st.integers(0, 2**16), st.integers(0, 7))
def test_a_changed_bit_does_not_open(body: bytes, at: int, bit: int) -> None:
    one, other = ends()
    data = bytearray(one.pack(KIND_F32, 1, 2, body))
    data[PREFIX_BYTES + at % (len(data) - PREFIX_BYTES)] ^= 1 << bit
    with pytest.raises(SealBroken):
        other.feed(bytes(data))


def test_frames_that_are_out_of_order_or_missing_or_come_twice_do_not_open() -> None:
    one, _ = ends()
    first, second = (one.pack(KIND_F32, request, 0, b"row") for request in (1, 2))
    assert [message.request for message in ends()[1].feed(first + second)] == [1, 2]
    for wrong in (second + first, second, first + first):
        with pytest.raises(SealBroken):
            ends()[1].feed(wrong)


def test_frames_of_its_own_do_not_come_back_to_an_end() -> None:
    one, _ = ends()
    with pytest.raises(SealBroken):
        one.feed(one.pack(KIND_HELLO, 0, 0, b""))


@pytest.mark.parametrize("kind", [KIND_TOKEN + 1, 255])
def test_an_unknown_kind_is_refused(kind: int) -> None:
    one, other = ends()
    assert other.feed(one.pack(KIND_TOKEN, 1, 2, b"body"))[0].kind == KIND_TOKEN
    with pytest.raises(ChannelRefused, match="no message: 13 bytes"):
        other.feed(one.pack(kind, 1, 2, b"body"))


@pytest.mark.parametrize("size", range(9))
def test_what_is_too_short_for_a_message_is_refused(size: int) -> None:
    one, other = streams()
    with pytest.raises(ChannelRefused, match=f"no message: {size} bytes"):
        LaneStream(other).feed(prefixed(one.seal(b"\1" * size)))


def test_nine_bytes_are_a_message_without_a_body() -> None:
    one, other = streams()
    (message,) = LaneStream(other).feed(prefixed(one.seal(bytes(9))))
    assert message == LaneMessage(KIND_HELLO, 0, 0, b"")


@given(NUMBERS)
def test_a_token_is_read_as_it_was_written(token: int) -> None:
    one, other = ends()
    (message,) = other.feed(one.pack(KIND_TOKEN, 1, 2, token_body(token)))
    assert message.token == token
    assert token_body(token) == token.to_bytes(4, "little")


@pytest.mark.parametrize("size", [0, 3, 5, 8])
def test_a_token_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ChannelRefused, match=f"a token of {size} bytes came over a lane"):
        _ = LaneMessage(KIND_TOKEN, 1, 2, bytes(size)).token
