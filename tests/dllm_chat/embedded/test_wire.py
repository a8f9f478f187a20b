"""Door and supervisor exchange JSON objects, a line each; anything else ends the talk."""

from __future__ import annotations

import asyncio

import pytest

from dllm_chat.embedded.wire import MAX_LINE_BYTES, SupervisorLost, read_line


def reader_of(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def test_messages_come_line_by_line_until_the_end() -> None:
    reader = reader_of(b'{"a": 1}\n{"b": 2}\n')
    assert [await read_line(reader), await read_line(reader), await read_line(reader)] == [
        {"a": 1},
        {"b": 2},
        None,
    ]


@pytest.mark.parametrize(
    "line", [b"no json\n", b"[1, 2]\n", b"{" * (MAX_LINE_BYTES + 1) + b"\n", b"\xff\xfe\n"]
)
async def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(SupervisorLost):
        await read_line(reader_of(line))
