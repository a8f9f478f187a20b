"""Worker processes on a real chain: registered, paid, killed, started again, and gone without a trace."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dllm_protocol.actions import CloseSession
from dllm_protocol.assignment import leg_entries
from dllm_protocol.records import SESSION_OPEN
from dllm_protocol.session.ledger import Ledger, fresh_state
from dllm_protocol.signing import SeedSigner
from tests.local_worker.clients import Client
from tests.local_worker.network import Network, Worker

KEY = SeedSigner(b"\x51" * 32)
PROMPT = [1, *range(300, 340)]


@pytest.fixture
async def network(tmp_path: Path, tiny_model: Path) -> AsyncIterator[Network]:
    made = await Network.start(tmp_path, tiny_model, workers=1)
    yield made
    await made.close()


async def client_of(network: Network, worker: Worker) -> Client:
    """A session on chain, and a channel to the worker that its route names."""
    session = await network.open_session(KEY)
    found = await network.chain.session(session)
    assert found is not None
    record, route = found
    (provider,) = leg_entries(route)
    served_by = await network.chain.provider(provider)
    assert served_by is not None and list(served_by.endpoints) == worker.ready["endpoints"]
    ledger = Ledger(
        chain_id=network.chain.chain_id,
        route=route,
        session_key=KEY,
        deposit_udllm=record.deposit_udllm,
        community_share_ppm=record.community_share_ppm,
        state=fresh_state(session),
    )
    client = Client(network.chain, provider, KEY, session, ledger)
    await client.reconnect()
    return client


def children_of(pid: int) -> list[int]:
    """Processes whose parent this is."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether the process runs; one that nobody has waited for yet is gone too."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the latter where it goes between opening and reading
        return False


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(30):
        while alive(pid):  # noqa: ASYNC110  not our child: the kernel tells us nothing
            await asyncio.sleep(0.02)


async def test_an_answer_is_paid_on_chain_when_the_worker_leaves(network: Network) -> None:
    worker = await network.worker(0)
    client = await client_of(network, worker)
    await client.ask(0, PROMPT)
    await client.stream(len(PROMPT), 300, 20)
    acked = (await client.seal()).ack.ack
    await client.channel.close()
    provider = await network.chain.provider(client.provider)
    assert provider is not None
    before = await network.chain.account(provider.owner)
    assert await worker.end_lifeline() == 0
    session = await network.chain.session_record(client.session)
    assert session is not None and (session.status, session.voucher_n) == (SESSION_OPEN, acked.n)
    assert session.legs[0].cumulative_udllm == acked.cumulative_udllm == client.ledger.payments_udllm
    after = await network.chain.account(provider.owner)
    assert before is not None and after is not None
    assert after.sequence - before.sequence == 2  # the claim and the withdrawal
    assert after.balance_udllm < before.balance_udllm + acked.cumulative_udllm
    offer = await network.chain.offer("tiny-model", client.provider)
    assert offer is None or offer.capacity_sessions == 0
    told = worker.status()
    assert (told["state"], told["claimed_udllm"]) == ("stopped", acked.cumulative_udllm)


async def test_kill_9_loses_no_voucher_and_leaves_no_engine(network: Network) -> None:
    worker = await network.worker(0)
    client = await client_of(network, worker)
    await client.ask(0, PROMPT)
    made = await client.stream(len(PROMPT), 300, 20)
    (engine,) = children_of(worker.process.pid)
    os.kill(worker.process.pid, signal.SIGKILL)
    await worker.process.wait()
    await until_gone(engine)

    worker = await network.worker(0)
    assert client.ledger.state.n > 0
    await client.reconnect()
    assert client.channel.ready.voucher_n == client.ledger.state.n
    assert client.channel.ready.held_rows == 0
    await client.ask(0, PROMPT)
    assert await client.stream(len(PROMPT), 300, 20) == made
    await client.channel.close()

    # The client takes the rest of its deposit back with nothing shown: the worker answers with its voucher.
    await network.chain.send((CloseSession(client.session, None, (), ()),))
    async with asyncio.timeout(60):
        while True:
            session = await network.chain.session_record(client.session)
            assert session is not None
            if session.voucher_n == client.ledger.state.n:
                break
            await asyncio.sleep(0.1)
    assert session.legs[0].cumulative_udllm == client.ledger.payments_udllm
    assert await worker.end_lifeline() == 0


async def test_two_signals_end_it_at_once_and_its_engine_with_it(network: Network) -> None:
    worker = await network.worker(0)
    (engine,) = children_of(worker.process.pid)
    worker.process.terminate()
    worker.process.terminate()
    assert await worker.process.wait() == 0
    await until_gone(engine)
    assert worker.status()["state"] == "stopped"
