"""Messages come out whole, however the bytes arrive; what is too long ends the connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from full_node.consensus.abci.framing import Frames, FrameTooLong, delimited


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 50))
def test_messages_come_out_as_they_went_in(messages: list[bytes], step: int) -> None:
    stream = b"".join(delimited(one) for one in messages)
    frames, found = Frames(), []
    for start in range(0, len(stream), step):
        found += frames.feed(stream[start : start + step])
    assert found == messages


def test_a_message_that_is_not_all_there_is_waited_for() -> None:
    frames = Frames()
    assert frames.feed(b"\x80") == []
    assert frames.feed(b"\x01") == []
    assert frames.feed(bytes(127)) == []
    assert frames.feed(b"\x00") == [bytes(128)]


def test_a_length_above_the_bound_is_refused_before_the_bytes_come() -> None:
    assert Frames(10).feed(delimited(bytes(10))) == [bytes(10)]
    with pytest.raises(FrameTooLong, match="11 bytes is announced, 10 are allowed"):
        Frames(10).feed(b"\x0b")


def test_a_length_that_does_not_end_is_refused() -> None:
    with pytest.raises(FrameTooLong, match="goes on after 5 bytes"):
        Frames().feed(b"\xff" * 5)
