"""The socket: answers in order, no connection kept waiting by another, and an end when the application fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dllm_protocol.comet_wire import bytes_field, message_field
from full_node.consensus.abci import requests, responses
from full_node.consensus.abci.framing import Frames, delimited
from full_node.consensus.abci.requests import Request
from full_node.consensus.abci.responses import Response, encode_response
from full_node.consensus.abci.server import CONNECTIONS_MAX, AbciServer, SocketRefused

FLUSH = delimited(message_field(2, b""))


def check_tx(tx: bytes) -> bytes:
    return delimited(message_field(8, bytes_field(1, tx)))


def by_length(request: Request) -> Response:
    assert isinstance(request, requests.CheckTx)
    return responses.CheckTx(code=len(request.tx))


@asynccontextmanager
async def served(path: Path, handler: Callable[[Request], Response] = by_length) -> AsyncIterator[AbciServer]:
    server = AbciServer(handler, path)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def read_messages(reader: asyncio.StreamReader, count: int) -> list[bytes]:
    frames, found = Frames(), []
    while len(found) < count:
        data = await asyncio.wait_for(reader.read(1 << 16), 60)
        assert data, "the server closed the connection"
        found += frames.feed(data)
    return found


async def test_answers_come_in_order_however_the_requests_are_cut(tmp_path: Path) -> None:
    async with served(tmp_path / "s"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        stream = b"".join(check_tx(bytes(n)) for n in range(1, 60)) + FLUSH
        for start in range(0, len(stream), 37):
            writer.write(stream[start : start + 37])
            await writer.drain()
            await asyncio.sleep(0)
        *codes, flushed = await read_messages(reader, 60)
        assert [delimited(one) for one in codes] == [
            encode_response(responses.CheckTx(code=n)) for n in range(1, 60)
        ]
        assert delimited(flushed) == encode_response(responses.Flush())
        writer.close()


async def test_a_connection_with_much_to_ask_leaves_turns_to_the_others(tmp_path: Path) -> None:
    asked: list[int] = []

    def note(request: Request) -> Response:
        assert isinstance(request, requests.CheckTx)
        asked.append(len(request.tx))
        return by_length(request)

    async with served(tmp_path / "s", note):
        busy, many = await asyncio.open_unix_connection(tmp_path / "s")
        quick, one = await asyncio.open_unix_connection(tmp_path / "s")
        one.write(check_tx(b"first"))
        await read_messages(quick, 1)  # both connections stand
        many.write(check_tx(b"x") * 2_000)
        one.write(check_tx(b"consensus"))
        await asyncio.gather(read_messages(quick, 1), read_messages(busy, 2_000))
        assert asked.index(len(b"consensus")) < 1_000
        assert len(asked) == 2_002
        many.close()
        one.close()


async def test_whoever_takes_no_answers_is_read_no_further(tmp_path: Path) -> None:
    asked = 0

    def long_answer(request: Request) -> Response:
        nonlocal asked
        asked += 1
        return responses.CheckTx(code=1, log="x" * 10_000)

    async with served(tmp_path / "s", long_answer):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s", limit=1 << 10)
        writer.write(check_tx(b"x" * 1_000) * 20_000)
        seen = -1
        while asked != seen:  # until it stands still
            seen = asked
            await asyncio.sleep(0.2)
        assert 0 < asked < 2_000
        await read_messages(reader, 20_000)
        assert asked == 20_000
        writer.close()


async def test_echo_is_said_back_on_each_of_several_connections(tmp_path: Path) -> None:
    async with served(tmp_path / "s"):
        for word in (b"one", b"two", b"three", b"four"):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
            writer.write(delimited(message_field(1, bytes_field(1, word))) + FLUSH)
            echoed, _ = await read_messages(reader, 2)
            assert echoed == message_field(2, bytes_field(1, word))
            writer.close()


async def test_a_failing_application_says_so_and_ends_the_server(tmp_path: Path) -> None:
    def fails(_request: Request) -> Response:
        raise RuntimeError("the state is broken")

    async with served(tmp_path / "s", fails) as server:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(check_tx(b"x"))
        (fault,) = await read_messages(reader, 1)
        assert fault == message_field(1, bytes_field(1, b"RuntimeError: the state is broken"))
        assert await asyncio.wait_for(reader.read(), 60) == b""
        with pytest.raises(RuntimeError, match="the state is broken"):
            await asyncio.wait_for(server.wait_failed(), 60)
        writer.close()


async def test_nobody_asks_an_application_that_has_failed(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def fails_at_last(request: Request) -> Response:
        assert isinstance(request, requests.CheckTx)
        asked.append(request.tx)
        if request.tx == b"the last":
            raise RuntimeError("the state is broken")
        return by_length(request)

    async with served(tmp_path / "s", fails_at_last):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        busy, many = await asyncio.open_unix_connection(tmp_path / "s")
        for one, taken in ((writer, reader), (many, busy)):
            one.write(check_tx(b"first"))
            await read_messages(taken, 1)  # both connections stand
        many.write(check_tx(b"x") * 2_000)
        writer.write(check_tx(b"the last"))
        while await asyncio.wait_for(busy.read(1 << 16), 60):
            pass
        assert asked[-1] == b"the last"
        for one in (writer, many):
            one.close()


@pytest.mark.parametrize("noise", [b"\xff" * 8, delimited(b"\x00\x00"), delimited(message_field(4, b""))])
async def test_noise_ends_its_connection_and_no_other(tmp_path: Path, noise: bytes) -> None:
    async with served(tmp_path / "s"):
        good_reader, good_writer = await asyncio.open_unix_connection(tmp_path / "s")
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(noise)
        (fault,) = await read_messages(reader, 1)
        assert fault[0] == 0x0A  # ResponseException
        assert await asyncio.wait_for(reader.read(), 60) == b""
        good_writer.write(check_tx(b"abc"))
        assert len(await read_messages(good_reader, 1)) == 1
        for one in (writer, good_writer):
            one.close()


async def test_connections_are_bounded(tmp_path: Path) -> None:
    async with served(tmp_path / "s"):
        writers = []
        for _ in range(CONNECTIONS_MAX):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
            writers.append(writer)
            writer.write(FLUSH)
            await read_messages(reader, 1)
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        assert await asyncio.wait_for(reader.read(), 60) == b""
        for one in (*writers, writer):
            one.close()


async def test_a_socket_in_a_folder_whose_name_is_very_long_works_and_is_private(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    path = folder / "abci.sock"
    async with served(path):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()
    with pytest.raises(SocketRefused):
        await AbciServer(by_length, folder / "missing" / "s").start()
