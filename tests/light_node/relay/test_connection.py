"""Dealing with a relay that is none, lies, stalls or babbles: each time an error that says what it did."""

from __future__ import annotations

import asyncio
import socket as sockets

import pytest
from websockets.asyncio.server import ServerConnection

from dllm_protocol.errors import DllmError
from dllm_protocol.relay import CloseReason, Listening, Welcome
from light_node.relay.connection import connect, dial
from light_node.relay.errors import (
    NobodyListens,
    RelayBroke,
    RelayRefused,
    RelayTimedOut,
    RelayUnreachable,
    StreamLost,
)
from light_node.relay.urls import relay_url
from tests.deaf import BATCHES, ping_client
from tests.light_node.relay.hostile import OPENED, Play, forever, hostile_relay, say, silence, welcome

ADDRESS = bytes(32)


async def refused_by(play: Play, *, subprotocol: str = "dllm-relay.1", timeout_ms: int = 5_000) -> DllmError:
    """What dialling there comes to."""
    async with hostile_relay(play, subprotocol=subprotocol) as url:
        with pytest.raises(DllmError) as refused:
            await dial(url, ADDRESS, timeout_ms=timeout_ms)
        assert url.name in refused.value.message
        return refused.value


async def test_nothing_listens_there() -> None:
    with sockets.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = relay_url(f"ws://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(RelayUnreachable, match="cannot reach"):
            await connect(url, 5)


async def test_another_websocket_server_is_no_relay() -> None:
    assert isinstance(await refused_by(silence, subprotocol=""), RelayBroke)
    assert isinstance(await refused_by(silence, subprotocol="dllm-relay.2"), RelayUnreachable)


async def test_a_silent_relay_is_left() -> None:
    assert isinstance(await refused_by(silence, timeout_ms=200), RelayTimedOut)

    async def after_welcome(socket: ServerConnection) -> None:
        await welcome(socket)
        await silence(socket)

    assert isinstance(await refused_by(after_welcome, timeout_ms=200), RelayTimedOut)


@pytest.mark.parametrize("garbage", [b"", b"\xff\xff", b"\x0a\x00", "words"])
async def test_garbage_is_named(garbage: bytes | str) -> None:
    async def first(socket: ServerConnection) -> None:
        await socket.send(garbage)
        await silence(socket)

    async def second(socket: ServerConnection) -> None:
        await welcome(socket)
        await first(socket)

    for play in (first, second):
        assert isinstance(await refused_by(play), RelayBroke)


async def test_an_answer_to_another_question_is_named() -> None:
    async def play(socket: ServerConnection) -> None:
        await welcome(socket)
        await say(socket, Listening(0))
        await silence(socket)

    error = await refused_by(play)
    assert isinstance(error, RelayBroke)
    assert "Listening where Opened" in error.message


async def test_more_than_a_welcome_is_too_much() -> None:
    async def play(socket: ServerConnection) -> None:
        await socket.send(bytes(1 << 20))
        await silence(socket)

    assert isinstance(await refused_by(play), RelayUnreachable)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (CloseReason.NOBODY, NobodyListens),
        (CloseReason.FULL, RelayRefused),
        (CloseReason.TOO_MANY, RelayRefused),
        (CloseReason.DECLINED, RelayRefused),
        (CloseReason.GOING_AWAY, RelayUnreachable),
        (4999, RelayUnreachable),
    ],
)
async def test_a_close_is_told_in_our_words_and_never_in_escapes(code: int, kind: type[DllmError]) -> None:
    async def play(socket: ServerConnection) -> None:
        await welcome(socket)
        await socket.close(code, "\x1b[2J evil")

    error = await refused_by(play)
    assert isinstance(error, kind)
    assert "\x1b" not in error.message + error.hint
    assert code == 4999 or "evil" not in error.message


async def test_a_redirect_is_not_followed() -> None:
    async with hostile_relay(silence) as innocent:

        async def redirecting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                f"HTTP/1.1 302 Found\r\nLocation: {innocent.url}\r\nContent-Length: 0\r\n\r\n".encode()
            )
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(redirecting, "127.0.0.1", 0) as server:
            url = relay_url(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            with pytest.raises(RelayUnreachable, match="302"):
                await dial(url, ADDRESS)


async def test_a_stream_that_the_relay_breaks_or_leaves() -> None:
    async def text(socket: ServerConnection) -> None:
        await welcome(socket)
        await say(socket, OPENED)
        await socket.send("words")
        await silence(socket)

    async def gone(socket: ServerConnection) -> None:
        await welcome(socket)
        await say(socket, OPENED)
        socket.transport.abort()

    async def mute(socket: ServerConnection) -> None:
        await welcome(socket)
        await say(socket, OPENED)
        await silence(socket)

    async def long(socket: ServerConnection) -> None:
        await welcome(socket)
        await say(socket, OPENED)
        await socket.send(bytes((1 << 20) + 1))

    for play, kind in ((text, RelayBroke), (gone, StreamLost), (mute, RelayTimedOut), (long, StreamLost)):
        async with hostile_relay(play) as url:
            stream = await dial(url, ADDRESS)
            with pytest.raises(kind):
                await stream.read(300)
            stream.abort()


async def test_a_stream_takes_what_the_other_side_sent_at_once_behind_opened() -> None:
    async def eager(socket: ServerConnection) -> None:
        await welcome(socket)
        await say(socket, OPENED)
        await socket.send(bytes(1 << 20))
        await socket.send("end")
        await silence(socket)

    async with hostile_relay(eager) as url:
        stream = await dial(url, ADDRESS)
        assert await stream.read() == bytes(1 << 20)
        assert await stream.read() is None
        await stream.close()


async def test_a_welcome_that_never_stops_is_one_welcome() -> None:
    from dllm_protocol.relay import FromRelay

    async def play(socket: ServerConnection) -> None:
        await forever(socket, FromRelay(Welcome(bytes(32))).encode(), 0)

    error = await refused_by(play)
    assert isinstance(error, RelayBroke)
    assert "Welcome where Opened" in error.message


async def test_a_relay_that_pings_and_takes_no_answers_is_left() -> None:
    taken: list[int] = []

    async def pings(socket: ServerConnection) -> None:
        await welcome(socket)
        taken.append(await ping_client(socket))

    assert isinstance(await refused_by(pings, timeout_ms=60_000), RelayUnreachable)
    assert taken[0] < BATCHES
