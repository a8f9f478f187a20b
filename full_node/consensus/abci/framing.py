"""Cutting an ABCI connection's bytes into messages: each has its length before it, as an unsigned varint."""

from __future__ import annotations

from dllm_protocol.comet_wire import delimited
from dllm_protocol.errors import MalformedBytes

__all__ = ["MESSAGE_BYTES_MAX", "FrameTooLong", "Frames", "delimited"]

MESSAGE_BYTES_MAX = 104_857_600
"""CometBFT v0.38's own bound of one message (abci/types/messages.go)."""
_LENGTH_BYTES_MAX = 5


class FrameTooLong(MalformedBytes):
    """A message is announced that is longer than allowed, or its length is no varint."""

    code = "E_ABCI_FRAME"


class Frames:
    """Bytes in, whole messages out; keeps what is not whole yet."""

    def __init__(self, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._longest = message_bytes_max

    def feed(self, data: bytes) -> list[bytes]:
        """Takes bytes in and returns the messages that they complete, in order.

        Raises:
            FrameTooLong: the other side does not speak the protocol; nothing after it can be read.
        """
        buffer = self._buffer
        buffer += data
        messages: list[bytes] = []
        start = 0
        with memoryview(buffer) as view:
            while (found := self._next(view, start)) is not None:
                begin, start = found
                messages.append(view[begin:start].tobytes())
        del buffer[:start]
        return messages

    def _next(self, view: memoryview, start: int) -> tuple[int, int] | None:
        """Where the message after `start` begins and ends; None when it is not all there."""
        length = shift = 0
        for position in range(start, min(start + _LENGTH_BYTES_MAX, len(view))):
            byte = view[position]
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                if length > self._longest:
                    raise FrameTooLong(
                        f"a message of {length} bytes is announced, {self._longest} are allowed"
                    )
                end = position + 1 + length
                return (position + 1, end) if end <= len(view) else None
            shift += 7
        if len(view) - start >= _LENGTH_BYTES_MAX:
            raise FrameTooLong(f"a message's length goes on after {_LENGTH_BYTES_MAX} bytes")
        return None
