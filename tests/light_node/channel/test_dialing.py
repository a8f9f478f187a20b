"""Dialling a provider: by itself or at a relay, in order, and what relays that lie cannot do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from dllm_protocol.endpoints import write_relay_endpoint
from dllm_protocol.errors import ChannelRefused
from dllm_protocol.messages import Acknowledge, Done, Output
from dllm_protocol.relay import SUBPROTOCOL, Dial, ToRelay, key_address
from dllm_protocol.session.handshake import ProviderNotProved
from dllm_protocol.signing import SeedSigner
from light_node.channel.client import claim_channel, open_channel
from light_node.channel.dialing import dial, first_that_answers
from light_node.channel.errors import ChannelLost, ChannelTimedOut, ChannelUnreachable
from light_node.channel.link import Link
from light_node.channel.server import serve_channels
from light_node.relay.listening import ByKey
from light_node.relay.urls import RelayUrl
from tests.full_node.relay.rig import Running, running_relay
from tests.light_node.channel.rig import SERVICE, Echo, make_leg
from tests.light_node.channel.test_channel import one_token
from tests.light_node.relay.hostile import OPENED, hostile_relay, say, silence, welcome

OTHER = SeedSigner(b"\x55" * 32)
TIMEOUT_MS = 10_000


def at(relay: RelayUrl, key: SeedSigner = SERVICE) -> str:
    return write_relay_endpoint(relay.url, relay.name, key_address(key.public_key))


@asynccontextmanager
async def relayed(running: Running, key: SeedSigner = SERVICE) -> AsyncIterator[Echo]:
    """A provider that is reached through a relay only."""
    provider = Echo(key)
    async with running.listening(provider.serve, ByKey(key)):
        yield provider


@pytest.fixture
def unused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_channel_is_opened_through_a_relay_as_it_is_directly() -> None:
    async with running_relay() as running, relayed(running):
        channel = await open_channel([at(running.url)], make_leg(), timeout_ms=TIMEOUT_MS)
        assert channel.endpoint == at(running.url)
        assert await one_token(channel, 0) == [Acknowledge, Output, Done]
        await channel.close()


async def test_direct_is_tried_before_any_relay_whatever_the_record_s_order() -> None:
    provider = Echo()
    server = await serve_channels("127.0.0.1", 0, provider.serve)
    direct = f"ws://127.0.0.1:{server.port}"
    async with running_relay() as running, relayed(running):
        channel = await open_channel([at(running.url), direct], make_leg(), timeout_ms=TIMEOUT_MS)
        assert channel.endpoint == direct
        assert running.relay.counts.streams == 0
        await channel.close()
    await server.close()


async def test_a_relay_is_used_where_the_direct_way_is_closed(unused_port: int) -> None:
    async with running_relay() as running, relayed(running):
        tried = [f"ws://127.0.0.1:{unused_port}", at(running.url)]
        channel = await open_channel(tried, make_leg(), timeout_ms=TIMEOUT_MS)
        assert channel.endpoint == at(running.url)
        await channel.close()


async def test_what_happened_at_each_endpoint_is_said(unused_port: int) -> None:
    async with running_relay() as running:
        gone = f"relay+ws://127.0.0.1:{unused_port}/{bytes(32).hex()}"
        tried = [f"ws://127.0.0.1:{unused_port}", at(running.url), gone, "ftp://\x1b[2J"]
        with pytest.raises(ChannelUnreachable) as caught:
            await open_channel(tried, make_leg(), timeout_ms=TIMEOUT_MS)
    said = caught.value.message
    assert f"{at(running.url)}: nobody listens at the relay {running.url.name} under this address" in said
    assert f"{gone}: cannot reach the relay ws://127.0.0.1:{unused_port}" in said
    assert "'ftp://\\x1b[2J': neither ws:// nor wss://" in said and "\x1b" not in said


async def test_a_silent_relay_uses_up_its_share_of_the_time_and_no_more() -> None:
    async def silent(link: ServerConnection) -> None:
        await link.wait_closed()

    async with hostile_relay(silent) as stuck, running_relay() as running, relayed(running):
        channel = await open_channel([at(stuck), at(running.url)], make_leg(), timeout_ms=2_000)
        assert channel.endpoint == at(running.url)
        await channel.close()


@asynccontextmanager
async def swapping_relay(behind: RelayUrl, key: SeedSigner) -> AsyncIterator[RelayUrl]:
    """A relay that joins whoever dials with another party than the one that was dialled."""

    async def play(victim: ServerConnection) -> None:
        async with connect(behind.url, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as real:
            await victim.send(await real.recv())
            asked = await victim.recv()
            assert isinstance(asked, bytes) and isinstance(ToRelay.decode(asked).message, Dial)
            await real.send(ToRelay(Dial(key_address(key.public_key))).encode())

            async def back() -> None:
                with contextlib.suppress(ConnectionClosed):
                    async for message in real:
                        await victim.send(message)
                await victim.close()

            returning = asyncio.create_task(back())
            with contextlib.suppress(ConnectionClosed):
                async for message in victim:
                    await real.send(message)
            await real.close()
            await returning

    async with hostile_relay(play) as url:
        yield url


async def test_a_relay_that_swaps_addresses_cannot_put_another_in_the_provider_s_place() -> None:
    async with (
        running_relay() as running,
        relayed(running, OTHER),
        swapping_relay(running.url, OTHER) as liar,
    ):
        link = await dial([at(liar)], timeout_ms=TIMEOUT_MS)
        with pytest.raises(ProviderNotProved):
            await claim_channel(link, make_leg(), asyncio.get_running_loop().time() + 10)
        link.abort()
        with pytest.raises(ChannelUnreachable, match="not signed with the provider's registered service key"):
            await open_channel([at(liar)], make_leg(), timeout_ms=TIMEOUT_MS)


async def test_after_a_relay_that_swaps_addresses_the_next_endpoint_is_tried() -> None:
    async with (
        running_relay() as running,
        relayed(running, OTHER),
        relayed(running),
        swapping_relay(running.url, OTHER) as liar,
    ):
        channel = await open_channel([at(liar), at(running.url)], make_leg(), timeout_ms=TIMEOUT_MS)
        assert channel.endpoint == at(running.url)
        assert await one_token(channel, 0) == [Acknowledge, Output, Done]
        await channel.close()


@pytest.mark.parametrize("reply", [b"garbage", bytes(2000), "text"])
async def test_what_a_relay_makes_up_in_the_provider_s_place_costs_the_endpoint_and_not_the_channel(
    reply: bytes | str,
) -> None:
    async def play(victim: ServerConnection) -> None:
        await welcome(victim)
        await say(victim, OPENED)
        await victim.recv()
        await victim.send(reply)
        await silence(victim)

    async with hostile_relay(play) as liar, running_relay() as running, relayed(running):
        channel = await open_channel([at(liar), at(running.url)], make_leg(), timeout_ms=TIMEOUT_MS)
        assert channel.endpoint == at(running.url)
        await channel.close()


async def test_a_dialled_line_carries_any_handshake() -> None:
    async def repeat(link: Link) -> None:
        while True:
            await link.send(await link.receive())

    async def greet(link: Link, _deadline: float) -> bytes:
        await link.send(b"hello")
        return await link.receive(5_000)

    server = await serve_channels("127.0.0.1", 0, repeat)
    async with running_relay() as running, running.listening(repeat, ByKey(SERVICE)):
        for endpoint in (f"ws://127.0.0.1:{server.port}", at(running.url)):
            link = await dial([endpoint], timeout_ms=TIMEOUT_MS)
            assert link.name == endpoint
            assert link.is_local is endpoint.startswith("ws://"), "behind a relay nobody can tell"
            await link.send(b"line")
            assert await link.receive(5_000) == b"line"
            await link.close()
            assert await first_that_answers([endpoint], greet, timeout_ms=TIMEOUT_MS) == b"hello"
    await server.close()


async def test_an_error_of_the_handshake_ends_the_dialling() -> None:
    tried = 0

    async def refuse(link: Link, _deadline: float) -> None:
        nonlocal tried
        tried += 1
        raise ChannelRefused("not like this")

    async with running_relay() as running, relayed(running):
        with pytest.raises(ChannelRefused, match="not like this"):
            await first_that_answers([at(running.url)] * 2, refuse, timeout_ms=TIMEOUT_MS)
        assert tried == 1


async def test_a_relayed_link_fails_with_the_errors_of_any_other() -> None:
    async def leave(link: Link) -> None:
        assert await link.receive() == b"first"

    async with running_relay() as running, running.listening(leave, ByKey(SERVICE)):
        link = await dial([at(running.url)], timeout_ms=TIMEOUT_MS)
        with pytest.raises(ChannelTimedOut):
            await link.receive(50)
        await link.send(b"first")
        with pytest.raises(ChannelLost, match="the other side closed"):
            await link.receive()
