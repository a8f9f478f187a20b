"""How much a decoder does for how much it is sent: lines of Python and bytes of memory, not seconds."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tests.fuzz.decoder import Decoder, refused
from tests.fuzz.table import decoders

SIZES = pytest.mark.parametrize(
    "size", [1 << 16, pytest.param(1 << 20, marks=pytest.mark.long)], ids=["64KiB", "1MiB"]
)
LINES_PER_BYTE = 40
LINES_FOR_NOTHING = 300_000
"""A handshake, an imported module: what is done whatever comes."""
MEMORY_PER_BYTE = 160
"""A list of empty lists, as JSON 3 bytes each, takes 24 times that in Python; records are heavier."""
MEMORY_FOR_NOTHING = 24 << 20


class TooMuchWork(AssertionError):
    """A decoder went beyond its bound."""


def lines_run(work: Callable[[], object], limit: int) -> int:
    """Lines of our own code that ran; stops at the limit.

    Raises:
        TooMuchWork: there were more.
    """
    count = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        if event == "line":
            count += 1
            if count > limit:
                raise TooMuchWork(f"more than {limit} lines, at {frame.f_code.co_qualname}")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def large(decoder: Decoder, size: int) -> list[bytes]:
    """Inputs of a size: the example again and again, one field many times, empty parts, one long part."""
    example = decoder.examples[0] or b"\x0a\x00"
    if decoder.is_json:
        return [
            (b"[" + example + b",") * (size // (len(example) + 2)),
            b"[" + b",".join([example] * (size // (len(example) + 1))) + b"]",
            b"[" + b"[]," * (size // 3) + b"[]]",
            b'{"id":1,"method":"' + b"a" * size + b'"}',
            b'"' + b"\\u0041" * (size // 6) + b'"',
        ]
    return [
        (example * (size // len(example) + 1))[:size],
        b"\x0a\x00" * (size // 2),
        b"\x0a\x01a" * (size // 3),
        b"\x12\x00" * (size // 2),
        example[:1] + bytes(size),
        b"a" * size,
        b"1" * size,
    ]


@SIZES
@pytest.mark.parametrize("decoder", decoders(), ids=lambda one: one.name)
def test_work_is_in_proportion(decoder: Decoder, size: int) -> None:
    refused(decoder, decoder.examples[0])
    for data in large(decoder, size):
        limit = LINES_PER_BYTE * len(data) + LINES_FOR_NOTHING
        lines_run(lambda data=data: refused(decoder, data), limit)  # type: ignore[misc]  # bound per input


@SIZES
@pytest.mark.parametrize("decoder", decoders(), ids=lambda one: one.name)
def test_memory_is_in_proportion(decoder: Decoder, size: int) -> None:
    refused(decoder, decoder.examples[0])
    for data in large(decoder, size):
        tracemalloc.start()
        try:
            refused(decoder, data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak <= MEMORY_PER_BYTE * len(data) + MEMORY_FOR_NOTHING, data[:40]


def test_quadratic_work_is_noticed() -> None:
    def careless() -> None:
        rest = bytes(3000)
        while rest:
            for _ in rest:
                pass
            rest = rest[1:]

    with pytest.raises(TooMuchWork):
        lines_run(careless, LINES_PER_BYTE * 3000 + LINES_FOR_NOTHING)
