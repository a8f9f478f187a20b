"""Listening at a relay: many at once, back after a loss, and the sealed channel that workers will serve through it."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.server import ServerConnection

from dllm_protocol.errors import ChannelRefused
from dllm_protocol.messages import Acknowledge, Done, Output
from dllm_protocol.relay import CloseReason, Incoming, Listening, key_address, name_address
from dllm_protocol.signing import SeedSigner
from full_node.relay.limits import RelayLimits
from light_node.channel.client import claim_channel
from light_node.relay import listening
from light_node.relay.connection import RelayStream, dial
from light_node.relay.errors import RelayBroke, RelayRefused, RelayReplaced, StreamLost
from light_node.relay.listening import ByKey, ByName, RelayListener
from light_node.relay.urls import RelayUrl
from tests.full_node.relay.rig import DEADLINE_S, NAME, running_relay, until
from tests.full_node.relay.test_server import echo
from tests.light_node.channel.rig import Echo, make_leg
from tests.light_node.channel.test_channel import one_token
from tests.light_node.relay.hostile import hostile_relay, say, silence, welcome

KEY = SeedSigner(b"\x41" * 32)


async def test_a_worker_serves_sealed_channels_through_a_relay() -> None:
    """Keyed listening end to end: the very code of both ends of a channel, over a relayed stream."""
    provider = Echo()

    async def serve(stream: RelayStream) -> None:
        await provider.serve(stream)

    async with running_relay() as running, running.listening(serve, ByKey(KEY)):
        for seed in (0x11, 0x12, 0x13):
            stream = await dial(running.url, key_address(KEY.public_key))
            leg = make_leg(seed)
            channel = await claim_channel(stream, leg, asyncio.get_running_loop().time() + DEADLINE_S)
            assert await one_token(channel, 0) == [Acknowledge, Output, Done]
            assert await one_token(channel, 1) == [Output, Done]
            await channel.close()
        assert running.relay.counts.streams == 3
        await until(lambda: len(provider.ended) == 3)


async def test_only_the_holder_of_a_key_listens_at_its_address() -> None:
    class Liar:
        """Says that it is KEY, and signs with another one."""

        public_key = KEY.public_key

        def sign(self, message: bytes) -> bytes:
            return SeedSigner(b"\x42" * 32).sign(message)

    async with running_relay() as running:
        with pytest.raises(RelayRefused, match=CloseReason.NOT_PROVED.words):
            await RelayListener(running.url, ByKey(Liar()), echo, streams_max=1).start()


async def test_a_relay_under_another_name_cannot_pass_the_proof_on() -> None:
    """The signer dialled one relay; what it signs names that one, and another one refuses it."""
    async with running_relay() as running:
        other = RelayUrl(running.url.url, "evil.example:443")
        with pytest.raises(RelayRefused, match=CloseReason.NOT_PROVED.words) as refused:
            await RelayListener(other, ByKey(KEY), echo, streams_max=1).start()
        assert "name" in refused.value.hint


async def test_a_name_is_held_by_whoever_came_first() -> None:
    async with running_relay() as running, running.listening(echo):
        with pytest.raises(RelayRefused, match=CloseReason.TAKEN.words):
            await RelayListener(running.url, ByName(NAME), echo, streams_max=1).start()


async def test_a_listener_comes_back_after_the_relay_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "RETRY_FIRST_S", 0.05)
    async with running_relay() as first:
        port = int(first.url.name.rpartition(":")[2])
        listener = RelayListener(first.url, ByKey(KEY), echo, streams_max=4)
        await listener.start()
        running = asyncio.create_task(listener.run())
        await first.server.stop()
        await until(lambda: not listener.is_listening)
    async with running_relay(port=port) as second:
        await until(lambda: listener.is_listening)
        stream = await dial(second.url, key_address(KEY.public_key))
        await stream.send(b"back")
        assert await stream.read() == b"back"
        await stream.close()
        running.cancel()
        await asyncio.wait([running])
        await listener.close()


async def test_two_programs_with_one_key_do_not_throw_each_other_out_for_ever() -> None:
    async with running_relay() as running:
        older = RelayListener(running.url, ByKey(KEY), echo, streams_max=1)
        await older.start()
        async with running.listening(echo, ByKey(KEY)):
            with pytest.raises(RelayReplaced, match=CloseReason.REPLACED.words):
                await older.run()
            assert not older.is_listening
            stream = await dial(running.url, key_address(KEY.public_key))
            await stream.send(b"newer")
            assert await stream.read() == b"newer"
            await stream.close()
        await older.close()


async def test_a_handler_that_fails_ends_its_stream_only() -> None:
    async def picky(stream: RelayStream) -> None:
        if await stream.read() == b"bad":
            raise ChannelRefused("not like this")
        await stream.send(b"good")
        await stream.read()

    async with running_relay() as running, running.listening(picky):
        bad, good = [await dial(running.url, name_address(NAME)) for _ in range(2)]
        await bad.send(b"bad")
        with pytest.raises(StreamLost, match=CloseReason.PEER_LOST.words):
            await bad.read()
        await good.send(b"good")
        assert await good.read() == b"good"
        await good.close()


async def test_closing_ends_every_stream() -> None:
    async with running_relay(RelayLimits()) as running:
        async with running.listening(echo):
            stream = await dial(running.url, name_address(NAME))
        with pytest.raises(StreamLost):
            await stream.read()
        await until(lambda: running.relay.connections == 0)


async def test_a_relay_that_breaks_its_protocol_is_not_rung_again() -> None:
    async def play(socket: ServerConnection) -> None:
        await welcome(socket)
        await say(socket, Listening(0))
        await socket.send(b"\xff")
        await silence(socket)

    async with hostile_relay(play) as url:
        listener = RelayListener(url, ByKey(KEY), echo, streams_max=1)
        await listener.start()
        with pytest.raises(RelayBroke):
            await listener.run()
        await listener.close()


async def test_a_relay_that_rings_without_end_makes_few_connections() -> None:
    opened = 0

    async def play(socket: ServerConnection) -> None:
        nonlocal opened
        opened += 1
        await welcome(socket)
        if opened > 1:
            await silence(socket)
        await say(socket, Listening(0))
        for _ in range(200):
            await say(socket, Incoming(bytes(16), 1))
        declined = 0
        while declined < 200 - 3:
            await socket.recv()
            declined += 1
        all_declined.set()
        await silence(socket)

    all_declined = asyncio.Event()
    async with hostile_relay(play) as url:
        listener = RelayListener(url, ByKey(KEY), echo, streams_max=3)
        await listener.start()
        running = asyncio.create_task(listener.run())
        await asyncio.wait_for(all_declined.wait(), DEADLINE_S)
        assert opened <= 1 + 3
        running.cancel()
        await asyncio.wait([running])
        await listener.close()
