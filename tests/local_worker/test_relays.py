"""A worker that listens nowhere and serves through a relay: the same answers, and no more for strangers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from dllm_protocol.endpoints import BadEndpoint, RelayEndpoint, read_endpoint
from dllm_protocol.errors import DllmError, UsageRefused
from dllm_protocol.messages import Goodbye
from dllm_protocol.relay import CloseReason, key_address
from dllm_protocol.signing import SeedSigner
from light_node.channel.errors import ChannelLost, ChannelUnreachable, SaidGoodbye
from light_node.channel.limits import DEFAULT_LIMITS
from light_node.channel.link import Link
from light_node.relay import listening
from light_node.relay.connection import dial
from light_node.relay.errors import BadRelayAddress, RelayRefused
from light_node.relay.listening import ByKey
from light_node.relay.urls import RelayUrl, relay_url
from local_worker import relays
from local_worker.keys import load_keys
from local_worker.relays import OPEN, RelayPlaces, own_endpoints, unreachable
from local_worker.slice_flags import relays_of, slices_of
from tests.full_node.relay.rig import Running, running_relay
from tests.full_node.relay.test_server import echo
from tests.local_worker.clients import Client
from tests.local_worker.workers import IMPATIENT, RunningWorker, running_worker

PROMPT = [1, 300, 301, 302]


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  nothing announces what these tests wait for
            await asyncio.sleep(0.02)


async def asked(worker: RunningWorker, seed: int = 1) -> list[int]:
    """What a new session of a new client gets for the one prompt."""
    client = await Client.connect(worker.chain, worker.provider, seed)
    await client.ask(0, PROMPT)
    made = await client.stream(len(PROMPT), 300, 8)
    await client.channel.close()
    return made


async def dialled(worker: RunningWorker) -> RelayEndpoint:
    """The one endpoint that the worker announced."""
    (endpoint,) = worker.chain.providers[worker.provider].endpoints
    found = read_endpoint(endpoint)
    assert isinstance(found, RelayEndpoint)
    return found


async def test_an_answer_through_a_relay_is_the_direct_one(tmp_path: Path, tiny_model: Path) -> None:
    async with running_worker(tmp_path / "w", tiny_model) as worker:
        direct = await asked(worker)
    async with (
        running_relay() as running,
        running_worker(tmp_path / "w", tiny_model, relays=(running.url,), host=None) as worker,
    ):
        found = await dialled(worker)
        assert found.address == key_address(load_keys(tmp_path / "w").service.public_key)
        assert await asked(worker, 2) == direct
        assert running.relay.counts.streams == 1
        (endpoint,) = worker.service.status.endpoints
        assert (await worker.service._current_status()).endpoint_states == {endpoint: OPEN}


async def test_a_worker_waits_for_its_relay_loses_it_and_comes_back(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "RETRY_FIRST_S", 0.05)
    monkeypatch.setattr(listening, "RETRY_MAX_S", 0.2)
    async with AsyncExitStack() as stack:
        async with running_relay() as first:
            port = int(first.url.name.rpartition(":")[2])
            place = (first.url,)
            worker = await stack.enter_async_context(
                running_worker(tmp_path / "w", tiny_model, relays=place, host=None)
            )
            client = await Client.connect(worker.chain, worker.provider, 1)
            await client.ask(0, PROMPT)
            before = await client.stream(len(PROMPT), 300, 5)
        with pytest.raises(ChannelLost):
            await client.stream(len(PROMPT), 300, 1)
        (endpoint,) = worker.service.status.endpoints

        async def status() -> tuple[str, str]:
            now = await worker.service._current_status()
            return now.endpoint_states[endpoint], now.problem

        async with asyncio.timeout(60):
            while (await status())[0] == OPEN:  # noqa: ASYNC110  the listener notices by itself
                await asyncio.sleep(0.02)
        state, problem = await status()
        assert first.url.name in state and problem == f"nobody can reach this worker: {state}"
        assert worker.service.status.state == "serving"
        with pytest.raises(ChannelUnreachable, match="cannot reach the relay"):
            await client.reconnect()
        async with running_relay(port=port):
            async with asyncio.timeout(60):
                while (await status()) != (OPEN, ""):  # noqa: ASYNC110  the listener comes back by itself
                    await asyncio.sleep(0.02)
            await client.reconnect()
            await client.ask(0, PROMPT)
            assert await client.stream(len(PROMPT), 300, 5) == before
            await client.channel.close()


async def test_two_workers_are_told_apart_at_one_relay(tmp_path: Path, tiny_model: Path) -> None:
    async with (
        running_relay() as running,
        running_worker(tmp_path / "a", tiny_model, relays=(running.url,), host=None) as one,
        running_worker(tmp_path / "b", tiny_model, relays=(running.url,), host=None) as other,
    ):
        assert (await dialled(one)).address != (await dialled(other)).address
        assert await asked(one) == await asked(other)
        assert running.relay.listeners == {"key": 2, "name": 0}


async def test_a_goodbye_still_arrives_through_a_relay(tmp_path: Path, tiny_model: Path) -> None:
    async with (
        running_relay() as running,
        running_worker(tmp_path / "w", tiny_model, relays=(running.url,), host=None) as worker,
    ):
        key = SeedSigner(bytes([9]) * 32)
        session = worker.chain.open_session(worker.provider, key)
        worker.chain.change(session, status=2)
        with pytest.raises(SaidGoodbye, match="closing or closed"):
            await Client.connect(worker.chain, worker.provider, 9, session=session)


async def test_when_a_worker_stops_it_listens_at_the_relay_no_more(tmp_path: Path, tiny_model: Path) -> None:
    async with running_relay() as running:
        async with running_worker(tmp_path / "w", tiny_model, relays=(running.url,), host=None) as worker:
            client = await Client.connect(worker.chain, worker.provider, 1)
            await client.ask(0, PROMPT)
            said: list[object] = []
            worker.stop.set()
            with pytest.raises(ChannelLost):
                while True:
                    said += await client.channel.receive(20_000)
        assert said == [Goodbye("this worker stops")]
        await until(lambda: running.relay.connections == 0)


async def test_where_it_listens_publicly_that_comes_before_its_relays(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loopback stands for a public address here: the rule itself is tested below."""
    monkeypatch.setattr(relays, "_is_public", lambda _host: True)
    async with (
        running_relay() as running,
        running_worker(tmp_path / "w", tiny_model, relays=(running.url,)) as worker,
    ):
        direct, relayed = worker.chain.providers[worker.provider].endpoints
        assert direct.startswith("ws://127.0.0.1:") and relayed.startswith("relay+ws://")
        assert await asked(worker) == await asked(worker, 2)
        assert running.relay.counts.streams == 0
        now = await worker.service._current_status()
        assert now.endpoint_states[direct] == OPEN


@pytest.mark.parametrize(
    ("host", "announced"),
    [
        ("127.0.0.1", ()),
        ("::1", ()),
        ("localhost", ()),
        ("0.0.0.0", ()),
        ("192.168.1.20", ()),
        ("100.64.0.1", ()),
        ("8.8.8.8", ("ws://8.8.8.8:9",)),
        ("2600::1", ("ws://[2600::1]:9",)),
        ("worker.example", ("ws://worker.example:9",)),
    ],
)
def test_beside_a_relay_only_what_strangers_can_dial_is_announced(
    host: str, announced: tuple[str, ...]
) -> None:
    assert own_endpoints(host, 9, has_relays=True) == announced
    assert len(own_endpoints(host, 9, has_relays=False)) == 1


def test_a_worker_is_unreachable_when_every_endpoint_is() -> None:
    assert unreachable({}) == unreachable({"a": OPEN, "b": "lost"}) == ""
    assert unreachable({"a": "lost", "b": "full"}) == "nobody can reach this worker: lost; full"


def test_a_relay_that_no_record_could_name_is_refused_at_once() -> None:
    with pytest.raises(BadEndpoint):
        RelayPlaces((relay_url("wss://relay.example/" + "a" * 200),), KEY, _wait, DEFAULT_LIMITS)


def test_with_a_relay_and_no_address_it_listens_nowhere_and_else_where_it_was_told() -> None:
    def doors(listen: tuple[str, ...], announce: tuple[str, ...], relays: int) -> list[str | None]:
        made = slices_of(("0:1", "1:2"), listen, announce and announce * 2, (), 1, relays=relays)
        return [one.host for one in made]

    assert doors((), (), 0) == doors((), ("ws://a:1",), 1) == ["127.0.0.1"] * 2
    assert doors((), (), 1) == [None, None]
    assert doors(("192.0.2.1:9",), (), 1) == ["192.0.2.1"] * 2


def test_more_endpoints_than_a_record_has_room_for_are_refused() -> None:
    with pytest.raises(UsageRefused, match="7 endpoints and 2 relays"):
        slices_of((), (), [f"ws://a:{number}" for number in range(7)], (), 1, relays=2)
    with pytest.raises(UsageRefused, match="5 relays, at most 4"):
        relays_of([f"wss://relay-{number}.example" for number in range(5)], plain_allowed=False)


def test_relays_are_taken_once_each_and_plain_ones_only_where_that_was_said() -> None:
    assert len(relays_of(["wss://a.example", "a.example", "wss://a.example/"], plain_allowed=False)) == 1
    with pytest.raises(BadRelayAddress, match="not protected"):
        relays_of(["ws://a.example"], plain_allowed=False)
    assert relays_of(["ws://a.example"], plain_allowed=True)[0].name == "a.example:80"
    for path in ("/a/", "/a!", "/" + "a" * 150):
        with pytest.raises(BadRelayAddress, match="cannot be announced"):
            relays_of([f"wss://a.example{path}"], plain_allowed=False)


# Strangers

KEY = SeedSigner(b"\x61" * 32)


async def _wait(link: Link) -> None:
    await link.receive(60_000)


class Held:
    """A place at a relay, served by a handler of the test's."""

    def __init__(self, running: Running, handler: relays.OnConnection = _wait) -> None:
        self.running = running
        self.places = RelayPlaces((running.url,), KEY, handler, DEFAULT_LIMITS)

    async def __aenter__(self) -> RelayPlaces:
        self._task = asyncio.create_task(self.places.run())
        await self.places.wait_for_one()
        return self.places

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.places.close()


async def test_streams_through_one_relay_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "STREAMS_PER_RELAY", 2)
    async with running_relay() as running, Held(running):
        address = key_address(KEY.public_key)
        held = [await dial(running.url, address) for _ in range(2)]
        with pytest.raises(RelayRefused, match=CloseReason.DECLINED.words):
            await dial(running.url, address)
        for stream in held:
            await stream.close()


async def test_a_long_message_before_the_claim_is_not_taken() -> None:
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handler(link: Link) -> None:
        try:
            await link.receive(10_000)
        except DllmError as error:
            outcome.set_result(error.message)
            raise

    async with running_relay() as running, Held(running, handler):
        stream = await dial(running.url, key_address(KEY.public_key))
        await stream.send(bytes(DEFAULT_LIMITS.hello_bytes + 1))
        assert "ended" in await asyncio.wait_for(outcome, 60)
        stream.abort()


async def test_a_stranger_costs_its_stream_and_no_other(tmp_path: Path, tiny_model: Path) -> None:
    async with (
        running_relay() as running,
        running_worker(
            tmp_path / "w", tiny_model, relays=(running.url,), host=None, limits=IMPATIENT
        ) as worker,
    ):
        found = await dialled(worker)
        client = await Client.connect(worker.chain, worker.provider, 1)
        silent, babbling = [await dial(running.url, found.address) for _ in range(2)]
        await babbling.send(b"no hello")
        for stranger in (babbling, silent):
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(stranger._socket.recv(), 60)
        await client.ask(0, PROMPT)
        await client.channel.close()


async def test_another_program_with_the_same_key_is_named_and_not_fought(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running_relay() as running, Held(running) as places:
        async with running.listening(echo, ByKey(KEY)):
            await until(lambda: not places.is_open)
            (state,) = places.states.values()
            assert CloseReason.REPLACED.words in state
        assert "not trying again" in caplog.text


async def test_a_relay_that_is_none_is_tried_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(relays, "BROKEN_PAUSE_S", 0.05)
    server = await asyncio.start_server(_not_a_relay, "127.0.0.1", 0)
    url = relay_url(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    places = RelayPlaces((url,), KEY, _wait, DEFAULT_LIMITS)
    task = asyncio.create_task(places.run())
    await until(lambda: places.states[places.endpoints[0]] != "connecting")
    assert url.name in places.states[places.endpoints[0]]
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    await places.close()
    server.close()
    assert json.dumps(places.states)
    assert caplog.text.count(url.name) >= 1


async def _not_a_relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    writer.close()


def test_relays_are_told_apart_by_their_names() -> None:
    two = (RelayUrl("ws://a:1", "a:1"), RelayUrl("wss://b:443", "b:443"))
    places = RelayPlaces(two, KEY, _wait, DEFAULT_LIMITS)
    address = key_address(KEY.public_key).hex()
    assert places.endpoints == (f"relay+ws://a:1/{address}", f"relay+wss://b:443/{address}")
    assert set(places.states.values()) == {"connecting"}
