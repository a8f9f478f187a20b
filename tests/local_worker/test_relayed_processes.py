"""Real processes: a chain, a relay, and workers without a port, asked over the relay by a client."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dllm_protocol.assignment import leg_entries
from dllm_protocol.endpoints import RelayEndpoint, read_endpoint, write_relay_endpoint
from dllm_protocol.errors import ChannelRefused, NetworkUnreachable
from dllm_protocol.session.ledger import Ledger, fresh_state
from dllm_protocol.signing import SeedSigner
from light_node.channel.dialing import dial
from light_node.channel.errors import ChannelUnreachable
from tests.local_worker.clients import Client
from tests.local_worker.network import Network, Worker

PROMPT = [1, *range(300, 340)]
TOKENS = 12
_RELAY = [sys.executable, "-c", "from full_node.cli import run; run()", "relay"]


@dataclass
class RelayProcess:
    """A relay that can be killed, and started again where it was."""

    home: Path
    url: str = ""
    _process: Process | None = None

    async def start(self) -> None:
        words = ["--home", str(self.home), "--lifeline", "--json"]
        if self.url:
            words += ["--listen", self.url.removeprefix("ws://")]
        self._process = await asyncio.create_subprocess_exec(*_RELAY, *words, stdin=PIPE, stdout=PIPE)
        assert self._process.stdout is not None
        self.url = json.loads(await self._process.stdout.readline())["data"]["url"]

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            await self._process.wait()


@pytest.fixture
async def network(tmp_path: Path, tiny_model: Path) -> AsyncIterator[Network]:
    made = await Network.start(tmp_path, tiny_model, workers=2)
    yield made
    await made.close()


@asynccontextmanager
async def relay_of(folder: Path) -> AsyncIterator[RelayProcess]:
    relay = RelayProcess(folder / "relay")
    await relay.start()
    try:
        yield relay
    finally:
        await relay.close()


async def clients_of(network: Network, key: SeedSigner) -> list[Client]:
    """A new session, and a client for each provider in its route, who has not dialled yet."""
    session = await network.open_session(key)
    found = await network.chain.session(session)
    assert found is not None
    record, route = found
    ledger = Ledger(
        chain_id=network.chain.chain_id,
        route=route,
        session_key=key,
        deposit_udllm=record.deposit_udllm,
        community_share_ppm=record.community_share_ppm,
        state=fresh_state(session),
    )
    return [Client(network.chain, provider, key, session, ledger) for provider in leg_entries(route)]


async def answer_of(client: Client) -> list[int]:
    await client.reconnect()
    await client.ask(0, PROMPT)
    made = await client.stream(len(PROMPT), 300, TOKENS)
    await client.channel.close()
    return made


def listening_sockets(pid: int) -> list[str]:
    """Sockets of a process on which somebody could connect to it, as the kernel knows them."""
    own = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            own.add(str(descriptor.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
    tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own]


async def until_open(worker: Worker, *, is_open: bool = True) -> str:
    """Wait until the status says so of the one endpoint; returns what it says."""
    async with asyncio.timeout(60):
        while True:
            # The file may still be the one from before the door opened: then it names no endpoint.
            states = list(worker.status()["endpoint_states"].values())
            if states and (states == ["open"]) is is_open:
                return str(states[0])
            await asyncio.sleep(0.1)


async def test_a_worker_without_a_port_answers_over_a_relay_which_may_die(
    network: Network, tmp_path: Path
) -> None:
    async with relay_of(tmp_path) as relay:
        worker = await network.worker(0, "--relay", relay.url)
        (endpoint,) = worker.ready["endpoints"]
        assert isinstance(read_endpoint(endpoint), RelayEndpoint)
        assert listening_sockets(worker.process.pid) == []
        (client,) = await clients_of(network, SeedSigner(b"\x51" * 32))
        relayed = await answer_of(client)
        assert client.channel.endpoint == endpoint

        await client.reconnect()
        await until_open(worker)  # its file is written now and then, and tells of the time before until it is
        await relay.kill()
        with pytest.raises((NetworkUnreachable, ChannelRefused)):
            await client.ask(0, PROMPT)
        assert "the relay" in await until_open(worker, is_open=False)
        assert worker.status()["problem"].startswith("nobody can reach this worker")
        with pytest.raises(ChannelUnreachable, match="cannot reach the relay"):
            await client.reconnect()
        await relay.start()
        await until_open(worker)
        assert await answer_of(client) == relayed
        assert worker.status()["problem"] == ""

        assert await worker.end_lifeline() == 0
        worker = await network.worker(0)
        assert worker.ready["endpoints"][0].startswith("ws://127.0.0.1:")
        assert await answer_of(client) == relayed, "the direct answer is the relayed one"
        assert await worker.end_lifeline() == 0


async def test_two_workers_at_one_relay_and_an_address_that_nobody_owns(
    network: Network, tmp_path: Path
) -> None:
    async with relay_of(tmp_path) as relay:
        workers = [await network.worker(number, "--relay", relay.url) for number in (0, 1)]
        clients: list[Client] = []
        tries = itertools.count(0x60)
        async with asyncio.timeout(60):
            while len(clients) < 2:  # until both stand in a frozen book: one serves, the other stands by
                clients = await clients_of(network, SeedSigner(bytes([next(tries)]) * 32))
        endpoints = set()
        for client in clients:
            await client.reconnect()
            endpoints.add(client.channel.endpoint)
            await client.channel.close()
        assert endpoints == {one for worker in workers for one in worker.ready["endpoints"]}
        nobody = write_relay_endpoint(relay.url, relay.url.removeprefix("ws://"), bytes(32))
        with pytest.raises(ChannelUnreachable, match="nobody listens at the relay"):
            await dial([nobody], timeout_ms=20_000)
        for worker in workers:
            assert await worker.end_lifeline() == 0
