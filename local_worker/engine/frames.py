"""Frames between the service and its engine: length-prefixed, bounded, little-endian as llama.cpp's own arrays.

    frame := length u32 (of what follows) | kind u8 | call u32 | body

Neither side trusts the other: the engine may have been taken over by a hostile model file, so every length and
count is checked against the bytes that are really there. These frames never leave the machine and are not stored.
Bodies are in `local_worker.engine.messages`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from dllm_protocol.errors import MalformedBytes

MAX_FRAME_BYTES: Final = 1 << 25
_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<IBI")


class FrameRefused(MalformedBytes):
    """Bytes that are no frame of ours; whoever reads them ends the conversation."""

    code = "E_FRAME"


class Kind(IntEnum):
    """What a frame says; requests below 16, answers from 16 on."""

    DECODE = 1
    CANCEL = 2
    CLEAR = 3
    TOKENIZE = 4
    VOCABULARY = 5
    FORWARD = 6
    TOKENIZE_MARKED = 7
    LANE_ROW = 8
    LANE = 9
    LANE_END = 10
    READY = 16
    ROWS = 17
    FAILED = 18
    TOKENS = 19
    PIECES = 20
    HIDDEN = 21
    LANE_UP = 22
    LANE_DOWN = 23


_KINDS: Final = {int(kind): kind for kind in Kind}


class Failure(IntEnum):
    """Names of failures as they cross the pipe."""

    MODEL_REFUSED = 1
    CONTEXT_FULL = 2
    DECODE_REFUSED = 3
    DECODE_FAILED = 4
    CANCELLED = 5
    BUSY = 6
    MISLED = 7


def frame(kind: Kind, call: int, body: bytes = b"") -> bytes:
    """One frame, ready to send."""
    if len(body) + 5 > MAX_FRAME_BYTES:
        raise FrameRefused(f"a {kind.name} of {len(body)} bytes is above {MAX_FRAME_BYTES}")
    return _HEAD.pack(len(body) + 5, kind, call) + body


class FrameReader:
    """Cuts a byte stream into frames; never holds more than one frame beyond what is complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[Kind, int, bytes]]:
        """Frames complete after ``data``: (kind, call, body) each.

        Raises:
            FrameRefused: a length out of bounds or an unknown kind.
        """
        # Most often a whole frame comes at once: then nothing is kept, and nothing copied twice.
        source: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            source = self._buffer
        frames = []
        start = 0
        while len(source) - start >= 4:
            (length,) = _LENGTH.unpack_from(source, start)
            if not 5 <= length <= MAX_FRAME_BYTES:
                raise FrameRefused(f"a frame of {length} bytes is outside 5..{MAX_FRAME_BYTES}")
            if len(source) - start < 4 + length:
                break
            _, number, call = _HEAD.unpack_from(source, start)
            kind = _KINDS.get(number)
            if kind is None:
                raise FrameRefused(f"unknown frame kind {number}")
            frames.append((kind, call, bytes(source[start + _HEAD.size : start + 4 + length])))
            start += 4 + length
        if source is self._buffer:
            del self._buffer[:start]
        else:
            self._buffer += source[start:]
        return frames
