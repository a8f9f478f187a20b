"""Both ends of a sealed channel over real websockets on loopback, and peers that misbehave on them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from dllm_protocol.messages import ROW_KEPT, Acknowledge, Done, Output
from dllm_protocol.session.client import ClientLeg
from dllm_protocol.signing import SeedSigner
from light_node.channel.client import Channel, open_channel
from light_node.channel.dialing import dial
from light_node.channel.errors import ChannelLost, ChannelTimedOut, ChannelUnreachable
from light_node.channel.limits import ChannelLimits
from light_node.channel.link import Link
from light_node.channel.server import ChannelServer, serve_channels
from tests.deaf import BATCHES, ping_server
from tests.light_node.channel.rig import Echo, make_leg

LIMITS = ChannelLimits(
    connections=6, connections_per_address=4, handshake_ms=2_000, write_ms=1_000, close_ms=200
)


@pytest.fixture
async def echo() -> AsyncIterator[tuple[ChannelServer, Echo]]:
    handler = Echo()
    server = await serve_channels("127.0.0.1", 0, handler.serve, limits=LIMITS)
    yield server, handler
    await server.close()


def endpoint(server: ChannelServer) -> str:
    return f"ws://127.0.0.1:{server.port}"


async def opened(server: ChannelServer, leg: ClientLeg | None = None) -> Channel:
    return await open_channel([endpoint(server)], leg or make_leg(), timeout_ms=60_000)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds that no event announces."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  there is no event for what another task's transport does
            await asyncio.sleep(0.01)


async def one_token(channel: Channel, position: int) -> list[type[object]]:
    """Ask for one row; return the kinds of messages until it was done."""
    _, frame = channel.leg.decode(position, [1], kind=ROW_KEPT, top_k=3)
    await channel.send(frame)
    seen: list[type[object]] = []
    while Done not in seen:
        seen += [type(message) for message in await channel.receive(60_000)]
    return seen


async def test_tokens_travel_both_ways(echo: tuple[ChannelServer, Echo]) -> None:
    channel = await opened(echo[0])
    assert channel.ready.context_rows == 512
    assert await one_token(channel, 0) == [Acknowledge, Output, Done]
    assert await one_token(channel, 1) == [Output, Done]
    await channel.close()


async def test_nagle_is_off_on_both_ends(echo: tuple[ChannelServer, Echo]) -> None:
    channel = await opened(echo[0])
    ours = channel._link._socket.transport.get_extra_info("socket")
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    (theirs,) = echo[0]._server.connections
    assert theirs.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    await channel.close()


async def test_endpoints_are_tried_in_order_and_what_cannot_be_dialled_is_skipped(
    echo: tuple[ChannelServer, Echo], unused_port: int
) -> None:
    tried = ["relay://somewhere/1", f"ws://127.0.0.1:{unused_port}", "ws://", endpoint(echo[0])]
    channel = await open_channel(tried, make_leg(), timeout_ms=8000)
    assert channel.endpoint == tried[3]
    await channel.close()


async def test_a_provider_that_is_nowhere_is_named_with_every_reason(unused_port: int) -> None:
    tried = ["relay://somewhere/1", f"ws://127.0.0.1:{unused_port}"]
    with pytest.raises(ChannelUnreachable) as caught:
        await open_channel(tried, make_leg(), timeout_ms=2000)
    assert "relay://somewhere/1: neither ws:// nor wss://" in caught.value.message
    assert str(unused_port) in caught.value.message


@pytest.fixture
def unused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_an_impostor_is_passed_over_for_the_next_endpoint(echo: tuple[ChannelServer, Echo]) -> None:
    impostor = await serve_channels("127.0.0.1", 0, Echo(SeedSigner(b"\x55" * 32)).serve, limits=LIMITS)
    channel = await open_channel([endpoint(impostor), endpoint(echo[0])], make_leg(), timeout_ms=60_000)
    assert channel.endpoint == endpoint(echo[0])
    await channel.close()
    await impostor.close()


async def test_a_silent_host_does_not_use_up_the_time_of_the_next(echo: tuple[ChannelServer, Echo]) -> None:
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    channel = await open_channel([f"ws://127.0.0.1:{port}", endpoint(echo[0])], make_leg(), timeout_ms=1000)
    assert channel.endpoint == endpoint(echo[0])
    await channel.close()
    silent.close()


async def test_browsers_are_refused(echo: tuple[ChannelServer, Echo]) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await connect(endpoint(echo[0]), additional_headers={"Origin": "https://example.com"}, proxy=None)
    assert caught.value.response.status_code == 403


async def test_a_long_message_before_the_claim_closes_the_connection(
    echo: tuple[ChannelServer, Echo],
) -> None:
    async with connect(endpoint(echo[0]), proxy=None) as stranger:
        await stranger.send(bytes(2000))
        with pytest.raises(ConnectionClosed) as caught:
            await stranger.recv()
    assert caught.value.rcvd is not None and caught.value.rcvd.code == 1009


async def test_text_closes_the_connection(echo: tuple[ChannelServer, Echo]) -> None:
    async with connect(endpoint(echo[0]), proxy=None) as stranger:
        await stranger.send("hello")
        with pytest.raises(ConnectionClosed) as caught:
            await stranger.recv()
    assert caught.value.rcvd is not None and "sealed frames are bytes" in caught.value.rcvd.reason


async def test_a_replayed_frame_costs_its_sender_the_connection_and_nobody_else(
    echo: tuple[ChannelServer, Echo],
) -> None:
    channel, other = await opened(echo[0]), await opened(echo[0], make_leg(0x12))
    _, frame = channel.leg.decode(0, [1], kind=ROW_KEPT, top_k=3)
    await channel.send(frame)
    await channel.send(frame)
    with pytest.raises(ChannelLost, match="does not open"):
        while True:
            await channel.receive(2000)
    assert Done in await one_token(other, 0)
    await other.close()


async def test_who_never_asks_is_cut_after_the_handshake_time(echo: tuple[ChannelServer, Echo]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", echo[0].port)
    writer.write(b"GET / HTTP/1.1\r\nHost:")
    assert await reader.read() == b""
    assert echo[0].connections == 0
    writer.close()


async def test_one_address_gets_so_many_connections_and_no_more(echo: tuple[ChannelServer, Echo]) -> None:
    held = [
        await opened(echo[0], make_leg(0x20 + number)) for number in range(LIMITS.connections_per_address)
    ]
    with pytest.raises((InvalidMessage, OSError)):
        await connect(endpoint(echo[0]), proxy=None)
    await held[0].close()
    await until(lambda: echo[0].connections < LIMITS.connections_per_address)
    again = await opened(echo[0], make_leg(0x30))
    assert Done in await one_token(again, 0)
    for channel in (*held, again):
        await channel.close()


async def test_who_does_not_read_is_cut_when_the_buffers_are_full() -> None:
    outcome: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def flood(link: Link) -> None:
        try:
            while True:
                await link.send(bytes(1 << 18))
        except ChannelTimedOut as error:
            outcome.set_result(error)
            raise

    server = await serve_channels("127.0.0.1", 0, flood, limits=LIMITS)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 10)
    key = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    writer.write(
        (key + "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n").encode()
    )
    error = await outcome
    assert isinstance(error, ChannelTimedOut) and "bytes unread" in error.message
    await until(lambda: not server.connections)
    writer.close()
    await server.close()
    assert reader is not None


async def test_of_very_small_messages_few_are_kept_before_reading_pauses() -> None:
    kept: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def reads_one(link: Link) -> None:
        await link.receive(60_000)
        await asyncio.sleep(0)
        kept.set_result(len(link._socket.recv_messages.frames))

    server = await serve_channels("127.0.0.1", 0, reads_one, limits=ChannelLimits(handshake_ms=60_000))
    async with connect(endpoint(server), proxy=None) as flooding:
        flooding.transport.write((bytes((0x82, 0x80)) + bytes(4)) * 40_000)
        assert await kept < 4_000
    await server.close()


async def test_whoever_pings_and_takes_no_answers_is_cut() -> None:
    async def waits(link: Link) -> None:
        await link.receive(60_000)

    server = await serve_channels("127.0.0.1", 0, waits, limits=ChannelLimits(handshake_ms=60_000))
    assert await ping_server("127.0.0.1", server.port) < BATCHES
    await until(lambda: not server.connections)
    await server.close()


async def test_a_connection_that_is_detached_is_bare_at_both_ends(echo: tuple[ChannelServer, Echo]) -> None:
    """Behind the last websocket message either side goes on with the socket alone, and nothing is lost or added."""
    taken: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()

    async def hand_over(link: Link) -> None:
        await link.receive()
        link.hold()
        await link.send(b"the last message")
        bare = link.detach()
        assert bare is not None
        taken.set_result(bare)

    server = await serve_channels("127.0.0.1", 0, hand_over, limits=LIMITS)
    link = await dial([endpoint(server)], timeout_ms=60_000)
    await link.send(b"hello")
    assert await link.receive() == b"the last message"
    assert link.is_bare and link.is_local
    ours, theirs = link.detach(), await taken
    assert ours is not None
    await until(lambda: server.connections == 0)
    await server.close()
    with ours, theirs:
        loop = asyncio.get_running_loop()
        for one, other in ((ours, theirs), (theirs, ours)):
            one.setblocking(False)
            other.setblocking(False)
            await loop.sock_sendall(one, b"bare")
            async with asyncio.timeout(60):
                assert await loop.sock_recv(other, 100) == b"bare"
    with pytest.raises(ChannelLost):
        await link.receive()
