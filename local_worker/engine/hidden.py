"""Frames with hidden states: rows that enter a chunk which is not the first, rows that leave one which is not the last.

A stranger's hidden states are numbers of a bounded size: one that is not a number would stay in the KV cache, and be
multiplied into whatever uses that place next.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from local_worker.engine.frames import FrameRefused, Kind, frame
from local_worker.engine.messages import DecodeRequest, Hidden, Ids

LARGEST_HIDDEN: Final = np.float32(1e15)
"""The largest magnitude that enters: trained models stay below 1e6, and squares of this one stay in f32's range."""
MAX_WIDTH: Final = 1 << 16
_SMALL_SUM: Final = np.float32(1e29)
"""Of squares, of which none is then above that of `LARGEST_HIDDEN`, however the sum was rounded."""
_FEW: Final = 1 << 13
"""More than this many numbers might be summed up by several threads."""
_FORWARD = struct.Struct("<IIHBII")
_HIDDEN = struct.Struct("<BIIII")


@dataclass(frozen=True, slots=True)
class HiddenAnswer:
    """Rows that left one slice: ``rows`` [rows, width] from ``first_position`` on."""

    last: bool
    held_rows: int
    first_position: int
    rows: Hidden
    sent: bool
    """Whether they went to the next stage over a lane."""


def are_usable(rows: Ids | Hidden) -> bool:
    """Whether all are numbers within bounds."""
    # One token's rows are looked at often, and in one go: no square is larger than the sum of all. A comparison with
    # what is not a number is False.
    if rows.size <= _FEW and rows.dtype == np.float32 and np.vdot(rows, rows) <= _SMALL_SUM:
        return True
    return bool((np.abs(rows) <= LARGEST_HIDDEN).all())


def forward_frame(request: DecodeRequest, call: int) -> bytes:
    """The frame of a request whose inputs are hidden states."""
    count, width = request.inputs.shape
    head = _FORWARD.pack(
        request.sequence, request.first_position, request.top_k, request.all_outputs, count, width
    )
    return frame(Kind.FORWARD, call, head + request.inputs.astype("<f4", copy=False).tobytes())


def read_forward(call: int, body: bytes) -> DecodeRequest:
    """Parse a request with hidden states; whether the width is the model's is checked by who knows it.

    Raises:
        FrameRefused: sizes that do not fit each other.
    """
    if len(body) < _FORWARD.size:
        raise FrameRefused(f"a body of {len(body)} bytes is below {_FORWARD.size}")
    sequence, first_position, top_k, all_outputs, count, width = _FORWARD.unpack_from(body)
    if all_outputs > 1:
        raise FrameRefused(f"a truth value of {all_outputs}")
    rows = _rows(body, _FORWARD.size, count, width)
    return DecodeRequest(call, sequence, first_position, top_k, bool(all_outputs), rows)


def hidden_frame(
    call: int, last: bool, held_rows: int, first_position: int, rows: Hidden, *, sent: bool = False
) -> bytes:
    """The frame of one slice's hidden states."""
    head = _HIDDEN.pack(last | sent << 1, held_rows, first_position, *rows.shape)
    return frame(Kind.HIDDEN, call, head + rows.astype("<f4", copy=False).tobytes())


def read_hidden(body: bytes) -> HiddenAnswer:
    """Parse one slice's hidden states; the array is a view into ``body``.

    Raises:
        FrameRefused: sizes that do not fit each other, or rows that are not numbers.
    """
    if len(body) < _HIDDEN.size:
        raise FrameRefused(f"a body of {len(body)} bytes is below {_HIDDEN.size}")
    flags, held_rows, first_position, count, width = _HIDDEN.unpack_from(body)
    if flags > 3:
        raise FrameRefused(f"hidden states with flags {flags}")
    rows = _rows(body, _HIDDEN.size, count, width)
    if not are_usable(rows):
        raise FrameRefused("hidden states that are not all numbers")
    return HiddenAnswer(bool(flags & 1), held_rows, first_position, rows, bool(flags & 2))


def _rows(body: bytes, start: int, count: int, width: int) -> Hidden:
    if not 1 <= width <= MAX_WIDTH or len(body) != start + 4 * count * width:
        raise FrameRefused(f"{count} rows of {width} numbers in {len(body) - start} bytes")
    flat = np.frombuffer(body, np.dtype("<f4"), count * width, start)
    return flat.reshape(count, width)
