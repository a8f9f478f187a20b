"""Hidden states across the pipe."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from local_worker.engine.frames import FrameRefused
from local_worker.engine.hidden import (
    LARGEST_HIDDEN,
    are_usable,
    forward_frame,
    hidden_frame,
    read_forward,
    read_hidden,
)
from local_worker.engine.messages import DecodeRequest

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4) / 7
HEAD_BYTES = 9


def test_a_request_arrives_as_it_was_sent() -> None:
    request = DecodeRequest(5, 2, 40, 7, True, ROWS)
    got = read_forward(5, forward_frame(request, 5)[HEAD_BYTES:])
    assert got.inputs.tobytes() == ROWS.tobytes() and got.inputs.shape == (3, 4)
    assert (got.call, got.sequence, got.first_position, got.top_k, got.all_outputs) == (5, 2, 40, 7, True)


def test_an_answer_arrives_as_it_was_sent() -> None:
    got = read_hidden(hidden_frame(5, True, 43, 40, ROWS)[HEAD_BYTES:])
    assert got.rows.tobytes() == ROWS.tobytes()
    assert (got.last, got.held_rows, got.first_position) == (True, 43, 40)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 2e15, -2e15])
def test_what_is_no_usable_number_is_found(number: float) -> None:
    rows = ROWS.copy()
    rows[1, 2] = number
    assert not are_usable(rows)
    with pytest.raises(FrameRefused, match="not all numbers"):
        read_hidden(hidden_frame(1, True, 3, 0, rows)[HEAD_BYTES:])


def test_the_largest_number_is_usable() -> None:
    assert are_usable(np.full((1, 2), LARGEST_HIDDEN))
    assert are_usable(np.full((4, 2048), -LARGEST_HIDDEN)), "although the sum of the squares is large"
    assert are_usable(ROWS)


@pytest.mark.parametrize("change", ["short", "long", "empty", "width"])
def test_sizes_that_lie_are_refused(change: str) -> None:
    body = forward_frame(DecodeRequest(5, 2, 40, 7, True, ROWS), 5)[HEAD_BYTES:]
    bent = {
        "short": body[:-1],
        "long": body + b"\x00",
        "empty": b"",
        "width": body[:15] + struct.pack("<I", 0) + body[19:],
    }
    with pytest.raises(FrameRefused):
        read_forward(5, bent[change])
    with pytest.raises(FrameRefused):
        read_hidden(bent[change])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, np.nextafter(LARGEST_HIDDEN, np.float32(np.inf))])
@pytest.mark.parametrize("count", [1, 2048, 1 << 13, (1 << 13) + 1])
def test_one_bad_number_among_many_is_found(count: int, bad: float) -> None:
    """However few or many are looked at in one go."""
    rows = np.full((1, count), 0.5, dtype=np.float32)
    assert are_usable(rows)
    for at in {0, count // 2, count - 1}:
        spoilt = rows.copy()
        spoilt[0, at] = bad
        assert not are_usable(spoilt)
