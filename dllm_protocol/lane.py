"""What the engines of two stages say to each other [format].

A lane is a connection of its own between two stages of a session, beside their link. It begins as a link does, with
the same handshake and a `StageClaim` that says so; behind `StageReady` it is no websocket any more, and the two engines
own it: a row that leaves one enters the next without passing through anything else of either worker.

    frame  := length u32 (of what follows) | sealed
    sealed := kind u8 | request u32 | position u32 | body                    (all little-endian; then padded and sealed)

    HELLO  no body; once from either side, the dialling one first
    F32    hidden state of one row, as f32
    BF16   the same as bf16
    TOKEN  u32: the likeliest token at ``position``, for whom ``request`` would ask next

Only the stage before sends rows, and only the last stage sends tokens.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from dllm_protocol.errors import ChannelRefused
from dllm_protocol.messages import FORM_BF16, FORM_F32
from dllm_protocol.sealing import PAD_BYTES, SealedStream

KIND_HELLO: Final = 0
KIND_F32: Final = FORM_F32
KIND_BF16: Final = FORM_BF16
KIND_TOKEN: Final = 3
MAX_WIDTH: Final = 1 << 16
"""Numbers of a hidden state."""
MAX_LANE_FRAME_BYTES: Final = 4 * MAX_WIDTH + 4 * PAD_BYTES
_LENGTH: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<BII")
_TOKEN: Final = struct.Struct("<I")


class LaneMessage(NamedTuple):
    """One message; ``body`` is packed."""

    kind: int
    request: int
    position: int
    body: bytes

    @property
    def token(self) -> int:
        """Of a TOKEN.

        Raises:
            ChannelRefused: its body is none.
        """
        if len(self.body) != _TOKEN.size:
            raise ChannelRefused(f"a token of {len(self.body)} bytes came over a lane")
        return int(_TOKEN.unpack(self.body)[0])


def token_body(token: int) -> bytes:
    """The body of a TOKEN."""
    return _TOKEN.pack(token)


class LaneStream:
    """One end of a lane, without I/O: messages in, bytes out."""

    def __init__(self, stream: SealedStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    def pack(self, kind: int, request: int, position: int, body: bytes) -> bytes:
        """The bytes of the next message to send."""
        sealed = self._stream.seal(_HEAD.pack(kind, request, position) + body)
        return _LENGTH.pack(len(sealed)) + sealed

    def feed(self, data: bytes) -> list[LaneMessage]:
        """Messages that are complete after ``data``; never keeps more than one frame beyond them.

        Raises:
            ChannelRefused: close the lane.
        """
        # Most often one whole frame comes at once: then nothing is kept, and nothing copied twice.
        source: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            source = self._buffer
        found = []
        start = 0
        while len(source) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(source, start)
            if not PAD_BYTES <= length <= MAX_LANE_FRAME_BYTES:
                raise ChannelRefused(
                    f"a frame of {length} bytes came over a lane, {PAD_BYTES} to {MAX_LANE_FRAME_BYTES} are taken"
                )
            end = start + _LENGTH.size + length
            if len(source) < end:
                break
            found.append(self._message(bytes(source[start + _LENGTH.size : end])))
            start = end
        if source is self._buffer:
            del self._buffer[:start]
        else:
            self._buffer += source[start:]
        return found

    def _message(self, sealed: bytes) -> LaneMessage:
        plain = self._stream.open(sealed)
        if len(plain) < _HEAD.size or plain[0] > KIND_TOKEN:
            raise ChannelRefused(
                f"what came over a lane is no message: {len(plain)} bytes, the first is {plain[:1].hex() or 'none'}"
            )
        kind, request, position = _HEAD.unpack_from(plain)
        return LaneMessage(kind, request, position, plain[_HEAD.size :])
