"""A worker's life through crashes: of its engine, of itself, and to its end in good order."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from dllm_protocol.actions import (
    ClaimVoucher,
    RegisterModel,
    RegisterProvider,
    SetOffer,
    UpdateProvider,
    WithdrawOffer,
)
from dllm_protocol.messages import REFUSED_ENGINE, Refused
from dllm_protocol.pricing import cost_of_rows
from dllm_protocol.refusals import InsufficientFunds
from dllm_protocol.session.provider import Standing
from light_node.channel.errors import ChannelLost, ChannelUnreachable
from local_worker.engine.errors import ModelRefused
from local_worker.engine.interface import ServingEngine
from local_worker.keys import create_keys
from local_worker.settlement import ClaimPolicy
from local_worker.status import read_status
from tests.local_worker.clients import TIMEOUT_MS, Client
from tests.local_worker.doubles import ChainDouble
from tests.local_worker.workers import RunningWorker, running_worker

PROMPT = [1, 300, 301, 302]


def engine_pid(worker: RunningWorker) -> int:
    return worker.slice.engine.current()._process.pid


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  nothing announces what these tests wait for
            await asyncio.sleep(0.02)


async def until_restarted(worker: RunningWorker) -> None:
    await until(lambda: worker.slice.engine.restarts)


async def test_it_registers_everything_in_one_transaction_and_says_how_it_is(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with running_worker(tmp_path / "w", tiny_model) as worker:
        kinds = [type(action) for action in worker.chain.sent]
        assert kinds == [RegisterModel, RegisterProvider, SetOffer]
        manifest = worker.chain.models["tiny-model"].manifest
        assert (manifest.layers, manifest.architecture, manifest.chat_template) == (2, "llama", "chatml")
        provider = worker.chain.providers[worker.provider]
        assert provider.endpoints == (f"ws://127.0.0.1:{worker.port}",)
        told = read_status(tmp_path / "w")
        assert told is not None, "it was written before anybody heard that it serves"
        assert (told["state"], told["model"], told["layers"]) == ("serving", "tiny-model", [0, 2])
        assert told["pid"] == os.getpid()
    told = read_status(tmp_path / "w")
    assert told is not None and told["state"] == "stopped"
    assert type(worker.chain.sent[-1]) is WithdrawOffer
    assert worker.chain.closed


async def test_a_killed_engine_costs_the_rows_in_it_and_nothing_else(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with running_worker(tmp_path / "w", tiny_model) as worker:
        client = await Client.connect(worker.chain, worker.provider, 1)
        before = await client.stream(0, 300, 5)
        # Held still, so that the rows are surely in it when it dies.
        engine = worker.slice.engine.current()
        os.kill(engine_pid(worker), signal.SIGSTOP)
        waiting_calls = engine.waiting_calls
        request = await client.send_decode(5, [5] * 400)
        await until(lambda: engine.waiting_calls > waiting_calls)
        os.kill(engine_pid(worker), signal.SIGKILL)
        *_, last = await client.answers(request)
        assert isinstance(last, Refused) and last.reason == REFUSED_ENGINE
        assert client.ledger.leg(worker.provider).used.prompt == 0
        await until_restarted(worker)
        await client.channel.close()
        await client.reconnect()
        assert client.channel.ready.held_rows == 0
        assert client.channel.ready.served.kept == 5
        assert await client.stream(0, 300, 5) == before
        await client.channel.close()
        assert worker.service.status.state == "serving"


async def test_while_the_engine_is_down_requests_are_refused_by_name(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_worker(tmp_path / "w", tiny_model) as worker:
        client = await Client.connect(worker.chain, worker.provider, 1)
        await client.ask(0, PROMPT)
        may_start, launch = asyncio.Event(), worker.slice.engine._launch

        async def when_it_may() -> ServingEngine:
            await may_start.wait()
            return await launch()

        monkeypatch.setattr(worker.slice.engine, "_launch", when_it_may)
        engine = worker.slice.engine.current()
        os.kill(engine_pid(worker), signal.SIGKILL)
        await engine.wait_closed()
        refused = await client.refused(0, PROMPT)
        assert refused.reason == REFUSED_ENGINE and "started again" in refused.message
        may_start.set()
        await until_restarted(worker)
        assert len(await client.ask(0, PROMPT)) == 1
        await client.channel.close()


async def test_a_restart_keeps_vouchers_and_claims_at_the_end(tmp_path: Path, tiny_model: Path) -> None:
    async with running_worker(tmp_path / "w", tiny_model) as worker:
        client = await Client.connect(worker.chain, worker.provider, 1)
        await client.ask(0, [5] * 200)
        await client.stream(200, 300, 20)
        acked = (await client.seal()).ack.ack
        row = await worker.slice.store.row(client.session)
        assert row is not None and row.unclaimed_udllm == acked.cumulative_udllm > 0
    claims = [action for action in worker.chain.sent if isinstance(action, ClaimVoucher)]
    assert [claim.voucher.voucher.n for claim in claims] == [acked.n]
    prices = worker.chain.offers[worker.provider].prices
    (leg,) = claims[0].voucher.voucher.legs
    assert leg.cumulative_udllm == cost_of_rows(prices, leg.rows)
    worker.chain.sent.clear()
    async with running_worker(tmp_path / "w", tiny_model, worker.chain) as again:
        assert [type(action) for action in again.chain.sent] == [UpdateProvider, SetOffer]
        assert again.provider == worker.provider
        await client.reconnect()
        assert client.channel.ready.voucher_n == acked.n
        assert client.channel.ready.served.total == 220
        (output,) = await client.ask(0, PROMPT)
        assert output.position == 3
        told = await again.slice.store.totals()
        assert told.claimed_udllm == acked.cumulative_udllm
        await client.channel.close()


async def test_a_voucher_is_on_disk_before_its_rows_are_delivered(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_worker(tmp_path / "w", tiny_model) as worker:
        client = await Client.connect(worker.chain, worker.provider, 1)
        release = asyncio.Event()
        commit = worker.slice.store.put

        async def slow(session: bytes, standing: Standing, owed_udllm: int, now_ms: int) -> None:
            await release.wait()
            await commit(session, standing, owed_udllm, now_ms)

        monkeypatch.setattr(worker.slice.store, "put", slow)  # a disk that takes its time
        request = await client.send_decode(0, PROMPT)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.channel.receive()
        release.set()
        assert [type(message).__name__ for message in await client.answers(request)] == [
            "Acknowledge",
            "Output",
            "Done",
        ]
        await client.channel.close()


async def test_clients_hear_goodbye_when_the_worker_stops(tmp_path: Path, tiny_model: Path) -> None:
    async with running_worker(tmp_path / "w", tiny_model) as worker:
        client = await Client.connect(worker.chain, worker.provider, 1)
        await client.ask(0, PROMPT)
        worker.stop.set()
        with pytest.raises(ChannelLost, match="this worker stops"):
            while True:
                await client.channel.receive(TIMEOUT_MS)
        await worker.task
        with pytest.raises(ChannelUnreachable):
            await client.reconnect()


async def test_an_answer_under_way_is_finished_before_the_worker_stops(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with running_worker(tmp_path / "w", tiny_model) as worker:
        client = await Client.connect(worker.chain, worker.provider, 1)
        request = await client.send_decode(0, [5] * 300)
        while not worker.slice.busy:  # noqa: ASYNC110  nothing announces that a frame was read
            await asyncio.sleep(0)
        worker.stop.set()
        assert type((await client.answers(request))[-1]).__name__ == "Done"


async def test_money_is_claimed_at_the_threshold_while_the_client_goes_on(
    tmp_path: Path, tiny_model: Path
) -> None:
    policy = ClaimPolicy(threshold_udllm=50, look_connected_s=0.05)
    async with running_worker(tmp_path / "w", tiny_model, claims=policy) as worker:
        client = await Client.connect(worker.chain, worker.provider, 1)
        async with asyncio.timeout(60):
            position = 0
            while not any(isinstance(action, ClaimVoucher) for action in worker.chain.sent):
                await client.stream(position, 300, 5)
                position += 5
                await asyncio.sleep(0.05)
        assert len(await client.stream(position, 300, 2)) == 2
        await client.channel.close()


async def test_a_file_that_is_no_model_is_refused_and_said_so(tmp_path: Path) -> None:
    path = tmp_path / "not-a-model.gguf"
    path.write_bytes(b"GGUF" + bytes(1000))
    with pytest.raises(ModelRefused):
        async with running_worker(tmp_path / "w", path):
            pass
    told = read_status(tmp_path / "w")
    assert told is not None and told["state"] == "failed" and told["problem"]


async def test_a_worker_without_money_fails_by_name(tmp_path: Path, tiny_model: Path) -> None:
    keys = create_keys(tmp_path / "w")
    chain = ChainDouble(keys.operator_address, refuse_next=[InsufficientFunds("0 udllm, needed are 10")])
    with pytest.raises(InsufficientFunds):
        async with running_worker(tmp_path / "w", tiny_model, chain):
            pass
    told = read_status(tmp_path / "w")
    assert told is not None and (told["state"], told["problem"]) == ("failed", "0 udllm, needed are 10")
