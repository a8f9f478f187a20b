"""A relay over real sockets: it joins, holds back, refuses and lets go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from dllm_protocol.relay import (
    CONTROL_BYTES_MAX,
    END,
    MESSAGE_BYTES_MAX,
    SUBPROTOCOL,
    Answer,
    CloseReason,
    Dial,
    Incoming,
    ListenByName,
    Listening,
    Opened,
    key_address,
    name_address,
)
from dllm_protocol.signing import SeedSigner
from full_node.relay.limits import RelayLimits
from full_node.relay.server import HANDSHAKES_PER_ADDRESS
from light_node.relay.connection import RelayStream, dial
from light_node.relay.errors import NobodyListens, RelayRefused, StreamLost
from light_node.relay.listening import ByKey
from tests.deaf import BATCHES, connect_deaf, ping_server
from tests.full_node.relay.rig import (
    DEADLINE_S,
    HOST,
    NAME,
    Running,
    close_code,
    heard,
    running_relay,
    said,
    until,
)

KEY = SeedSigner(b"\x31" * 32)
MEETING = name_address(NAME)


async def echo(stream: RelayStream) -> None:
    """Gives everything back, then ends."""
    while (message := await stream.read()) is not None:
        await stream.send(message)
    await stream.end()
    await stream.wait_closed(10_000)


async def never_read(stream: RelayStream) -> None:
    """Takes a stream and looks away."""
    await asyncio.sleep(3600)


async def joined(running: Running, listener: ClientConnection, dialer: ClientConnection) -> ClientConnection:
    """A raw stream; the connection that answered."""
    await said(dialer, Dial(MEETING))
    ring = await heard(listener)
    assert isinstance(ring, Incoming)
    offered = [Subprotocol(SUBPROTOCOL)]
    answerer = await connect(running.url.url, subprotocols=offered, proxy=None, max_size=None)
    await heard(answerer)
    await said(answerer, Answer(ring.ticket))
    assert isinstance(await heard(answerer), Opened)
    assert isinstance(await heard(dialer), Opened)
    return answerer


async def test_several_dial_one_key_at_once_and_each_talks_with_its_own() -> None:
    async with running_relay() as running, running.listening(echo, ByKey(KEY)):
        streams = await asyncio.gather(*(dial(running.url, key_address(KEY.public_key)) for _ in range(5)))
        assert running.relay.streams == 5
        for number, stream in enumerate(streams):
            await stream.send(b"question %d" % number)
        for number, stream in enumerate(streams):
            assert await stream.read() == b"question %d" % number
            await stream.end()
            assert await stream.read() is None
        await until(lambda: running.relay.streams == 0)
        assert running.relay.counts.closed[CloseReason.ENDED] == 10


async def test_messages_of_every_size_come_whole_and_in_order() -> None:
    messages = [b"", b"\x00", b"x" * 1000, bytes(range(256)) * 4096, b"end", b"y" * MESSAGE_BYTES_MAX]
    async with running_relay() as running, running.listening(echo):
        stream = await dial(running.url, MEETING)
        for message in messages:
            await stream.send(message)
            assert await stream.read() == message
        await stream.close()


async def test_a_slow_reader_holds_the_sender_back_and_loses_nothing() -> None:
    count, size = 96, 512 * 1024
    may_read = asyncio.Event()
    got: list[bytes] = []

    async def slow(stream: RelayStream) -> None:
        await may_read.wait()
        while (message := await stream.read()) is not None:
            got.append(message[:4])
        await stream.end()

    unpaced = RelayLimits(stream_bytes_per_s=1 << 30, remote_bytes_per_s=1 << 30)
    async with running_relay(unpaced) as running, running.listening(slow):
        stream = await dial(running.url, MEETING)

        async def send_all() -> None:
            for number in range(count):
                await stream.send(number.to_bytes(4) + bytes(size - 4))
            await stream.end()

        sending = asyncio.create_task(send_all())
        before = await _at_rest(lambda: running.relay.counts.forwarded_bytes)
        assert not sending.done(), "the sender waits"
        assert before < count * size // 2, "what is on its way is bounded by buffers"
        other = await asyncio.wait_for(dial(running.url, MEETING), DEADLINE_S)
        may_read.set()
        await asyncio.wait_for(sending, DEADLINE_S)
        assert await stream.read(int(DEADLINE_S * 1000)) is None
        assert got == [number.to_bytes(4) for number in range(count)]
        await other.close()


async def _at_rest(count: Callable[[], int]) -> int:
    """A count that has stopped to grow."""
    before, now = -1, 0
    while now != before or not now:
        await asyncio.sleep(0.5)
        before, now = now, count()
    return now


async def test_who_never_reads_is_cut_and_the_sender_is_told_why() -> None:
    async with running_relay(RelayLimits(stall_ms=400)) as running, running.listening(never_read):
        stream = await dial(running.url, MEETING)
        sending = asyncio.create_task(_send_until_it_fails(stream))
        with pytest.raises(StreamLost, match=CloseReason.STALLED.words):
            await stream.read()
        await sending
        await until(lambda: running.relay.streams == 0)


async def _send_until_it_fails(stream: RelayStream) -> None:
    from light_node.channel.errors import ChannelLost

    with pytest.raises(ChannelLost):
        while True:
            await stream.send(bytes(MESSAGE_BYTES_MAX))


async def test_what_was_sent_before_leaving_still_arrives() -> None:
    count = 24
    got: list[int] = []
    told: list[str] = []

    async def late(stream: RelayStream) -> None:
        await asyncio.sleep(0.5)
        try:
            while (message := await stream.read()) is not None:
                got.append(len(message))
                await asyncio.sleep(0.02)
        except StreamLost as error:
            told.append(error.message)

    async with running_relay() as running, running.listening(late):
        stream = await dial(running.url, MEETING)
        for _ in range(count):
            await stream.send(bytes(256 * 1024))
        await stream.close()
        await until(lambda: bool(told))
        assert got == [256 * 1024] * count
        assert CloseReason.PEER_ENDED.words in told[0]


async def test_sides_that_die_are_noticed_and_forgotten() -> None:
    async with running_relay() as running, running.raw() as listener:
        await said(listener, ListenByName(NAME))
        assert isinstance(await heard(listener), Listening)
        for dies in ("dialer", "answerer"):
            async with running.raw() as dialer:
                answerer = await joined(running, listener, dialer)
                first, second = (dialer, answerer) if dies == "dialer" else (answerer, dialer)
                first.transport.abort()
                assert await close_code(second) == CloseReason.PEER_LOST
                await answerer.close()
        async with running.raw() as dialer:
            await said(dialer, Dial(MEETING))
            await heard(listener)
            listener.transport.abort()
            assert await close_code(dialer) == CloseReason.NOBODY
        await until(lambda: running.relay.connections == 0)


async def test_nobody_is_there() -> None:
    async with running_relay() as running:
        with pytest.raises(NobodyListens):
            await dial(running.url, MEETING)


@pytest.mark.parametrize(
    ("message", "code"),
    [(b"garbage", CloseReason.BROKEN), ("text", CloseReason.BROKEN), (bytes(CONTROL_BYTES_MAX + 1), 1009)],
    ids=["garbage", "text", "long"],
)
async def test_a_hostile_first_message_costs_its_connection_only(message: bytes | str, code: int) -> None:
    async with running_relay() as running, running.listening(echo):
        async with running.raw() as hostile:
            await hostile.send(message)
            assert await close_code(hostile) == code
        stream = await dial(running.url, MEETING)
        await stream.send(b"still here")
        assert await stream.read() == b"still here"
        await stream.close()


@pytest.mark.parametrize(
    ("message", "code"),
    [("text", CloseReason.BROKEN), (bytes(MESSAGE_BYTES_MAX + 1), 1009), (END * 2, 4400)],
    ids=["text", "long", "no-end"],
)
async def test_what_no_stream_carries_ends_it_on_both_sides(message: bytes | str, code: int) -> None:
    async with running_relay() as running, running.raw() as listener, running.raw() as dialer:
        await said(listener, ListenByName(NAME))
        await heard(listener)
        answerer = await joined(running, listener, dialer)
        await dialer.send(message)
        assert await close_code(dialer) == code
        assert await close_code(answerer) == CloseReason.PEER_LOST
        await answerer.close()


async def test_a_flood_from_one_address_is_refused_beyond_its_share() -> None:
    limits = RelayLimits(connections_per_remote=5, opens_per_minute=60, answer_ms=60_000)
    async with running_relay(limits) as running, running.raw(local_addr=("127.0.0.2", 0)) as listener:
        await said(listener, ListenByName(NAME))
        await heard(listener)
        dialers = []
        for _ in range(5):
            dialers.append(
                await connect(running.url.url, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None)
            )
            await said(dialers[-1], Dial(MEETING))
            assert isinstance(await heard(listener), Incoming)
        refused = 0
        for _ in range(60):
            async with connect(running.url.url, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as one:
                refused += await close_code(one) == CloseReason.TOO_MANY
        assert refused == 60
        async with running.raw(local_addr=("127.0.0.3", 0)) as other:
            await said(other, Dial(MEETING))
            assert isinstance(await heard(listener), Incoming)
        for dialer in dialers:
            await dialer.close()


async def test_connections_that_ask_for_nothing_are_few_and_short() -> None:
    def silent() -> socket.socket:
        made = socket.socket()
        made.bind(("127.0.0.9", 0))
        made.connect((HOST, int(running.url.name.rpartition(":")[2])))
        made.setblocking(False)
        return made

    async def gone(one: socket.socket) -> bool:
        """Whether the relay hangs up, without a word."""
        try:
            said = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(one, 4096), DEADLINE_S)
        except ConnectionResetError:
            return True
        return not said

    async with running_relay(RelayLimits(handshake_ms=3_000)) as running:
        sockets = [silent() for _ in range(HANDSHAKES_PER_ADDRESS)]
        await asyncio.sleep(0.2)
        over = silent()
        assert await gone(over)
        async with running.raw():
            assert running.relay.connections == 1
        for one in sockets:
            assert await gone(one)
        for one in [*sockets, over]:
            one.close()
        async with running.raw() as mute:
            assert await close_code(mute) == CloseReason.LATE


async def test_pages_in_browsers_and_other_protocols_are_refused() -> None:
    async with running_relay() as running:
        for options, status in (
            ({"subprotocols": [Subprotocol(SUBPROTOCOL)], "origin": Origin("https://evil.example")}, 403),
            ({"subprotocols": [Subprotocol("dllm-relay.2")]}, 400),
            ({}, 400),
        ):
            with pytest.raises(InvalidStatus) as refused:
                await connect(running.url.url, proxy=None, **options)
            assert refused.value.response.status_code == status
        assert running.relay.connections == 0


async def test_behind_a_proxy_strangers_are_told_by_what_it_says_last() -> None:
    limits = RelayLimits(connections_per_remote=1)
    async with running_relay(limits, behind_proxy=True) as running:
        said_by_proxy = [
            ({"X-Forwarded-For": "203.0.113.1"}, True),
            ({"X-Forwarded-For": "203.0.113.9, 203.0.113.2"}, True),
            ({"X-Forwarded-For": "203.0.113.8, 203.0.113.1"}, False),
            ({"X-Forwarded-For": "2001:db8::1"}, True),
            ({"X-Forwarded-For": "2001:db8::2"}, False),
            ({"X-Forwarded-For": "x" * 3000}, True),
            ({"X-Forwarded-For": "not an address, y"}, False),
        ]
        kept = []
        for headers, taken in said_by_proxy:
            one = await connect(
                running.url.url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                proxy=None,
                additional_headers=headers,
            )
            kept.append(one)
            if taken:
                await heard(one)
            else:
                assert await close_code(one) == CloseReason.TOO_MANY
        for one in kept:
            await one.close()


async def test_a_stream_of_very_small_messages_leaves_turns_to_the_others() -> None:
    empty = bytes((0x82, 0x80)) + bytes(4)
    async with running_relay() as running, running.raw() as listener, running.raw() as dialer:
        await said(listener, ListenByName(NAME))
        await heard(listener)
        answerer = await joined(running, listener, dialer)
        dialer.transport.write(empty * 40_000)
        async with running.raw():
            assert running.relay.counts.forwarded_messages < 20_000
        await until(lambda: running.relay.counts.forwarded_messages == 40_000)
        answerer.transport.abort()


async def test_whoever_answers_no_close_takes_no_room_from_others() -> None:
    limits = RelayLimits(connections=8, listeners=2, streams=2, connections_per_remote=2)
    async with running_relay(limits, behind_proxy=True) as running:
        port = int(running.url.name.rpartition(":")[2])
        deaf = [
            await connect_deaf(HOST, port, subprotocol=SUBPROTOCOL, header="X-Forwarded-For: 203.0.113.1")
            for _ in range(limits.connections + limits.connections_per_remote)
        ]
        async with running.raw(additional_headers={"X-Forwarded-For": "203.0.113.2"}):
            assert running.relay.connections == limits.connections_per_remote + 1
        for one in deaf:
            one.transport.abort()
        await until(lambda: running.relay.is_empty and not running.server._closing_of)


async def test_whoever_pings_and_takes_no_answers_is_cut() -> None:
    async with running_relay() as running:
        port = int(running.url.name.rpartition(":")[2])
        assert await ping_server(HOST, port, subprotocol=SUBPROTOCOL) < BATCHES
        await until(lambda: not running.relay.connections)


async def test_silent_streams_are_cut() -> None:
    async with running_relay(RelayLimits(idle_ms=300)) as running, running.listening(never_read):
        stream = await dial(running.url, MEETING)
        assert stream.opened.idle_ms == 300
        with pytest.raises(StreamLost, match=CloseReason.IDLE.words):
            await stream.read()


async def test_a_dialer_is_told_that_it_was_declined() -> None:
    async with running_relay() as running, running.listening(never_read, streams_max=1):
        first = await dial(running.url, MEETING)
        with pytest.raises(RelayRefused, match=CloseReason.DECLINED.words):
            await dial(running.url, MEETING)
        await first.close()


async def test_stopping_tells_everybody_even_where_somebody_is_deaf() -> None:
    async with running_relay() as running, running.raw() as listener, running.raw() as dialer:
        await said(listener, ListenByName(NAME))
        await heard(listener)
        answerer = await joined(running, listener, dialer)
        answerer.transport.pause_reading()
        sending = asyncio.create_task(_flood(dialer))
        await until(lambda: running.relay.counts.forwarded_messages > 2)
        await asyncio.sleep(0.3)
        stopping = asyncio.create_task(running.server.stop())
        assert await close_code(listener) == CloseReason.GOING_AWAY
        await stopping
        await sending
        assert running.relay.connections == 0
        answerer.transport.abort()


async def _flood(sender: ClientConnection) -> None:
    try:
        while True:
            await sender.send(bytes(MESSAGE_BYTES_MAX))
    except ConnectionClosed:
        return
