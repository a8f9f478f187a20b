"""A real node under real transfers: settled means settled, kill -9 or not."""

from __future__ import annotations

import asyncio
import base64
import random
from pathlib import Path

import aiohttp

from dllm_protocol import state_keys
from dllm_protocol.block import tx_hash
from dllm_protocol.block_json import header_from_json
from dllm_protocol.ics23 import verify_membership
from dllm_protocol.json_shape import to_base64
from dllm_protocol.records import Account
from tests.full_node.processes import FEE_UDLLM, NodeProcess, Sender, call, init_with, send_and_wait

RECIPIENT = b"r" * 20
START_UDLLM = 1_000_000_000


async def _proved_account(http: aiohttp.ClientSession, url: str, address: bytes) -> Account:
    """An account as the newest header proves it."""
    key = state_keys.account(address)
    answer = await call(http, url, "abci_query", path="/store", data=key.hex(), prove=True)
    response = answer["response"]
    value = base64.b64decode(response["value"])
    answer = await call(http, url, "header", height=str(int(response["height"]) + 1))
    proof = base64.b64decode(response["proofOps"]["ops"][0]["data"])
    verify_membership(proof, header_from_json(answer["header"]).app_hash, key, value)
    return Account.decode(value)


async def _until_quiet(http: aiohttp.ClientSession, url: str) -> None:
    """Waits until nothing is left to do; see `until_settled`."""

    async def height() -> str:
        return str((await call(http, url, "status"))["sync_info"]["latest_block_height"])

    while True:
        before = await height()
        waiting = [(await call(http, url, "num_unconfirmed_txs"))["n_txs"] for _ in range(2)]
        if waiting[-1] == "0" and await height() == before:
            return


async def test_a_transfer_is_proved_within_moments(tmp_path: Path) -> None:
    sender = Sender.numbered(1)
    init_with(tmp_path, [sender])
    node = NodeProcess.start(tmp_path)
    try:
        async with aiohttp.ClientSession() as http:
            answer = await send_and_wait(http, node.url, sender.transfer(RECIPIENT, 5))
            assert answer["tx_result"]["code"] == 0
            await _until_quiet(http, node.url)
            assert (await _proved_account(http, node.url, RECIPIENT)).balance_udllm == 5
            mine = await _proved_account(http, node.url, sender.address)
            assert (mine.balance_udllm, mine.sequence) == (START_UDLLM - 5 - FEE_UDLLM, 1)
    finally:
        assert node.stop() == 0


async def _load(url: str, sender: Sender, settled: list[bytes], news: asyncio.Queue[None]) -> None:
    async with aiohttp.ClientSession() as http:
        while True:
            raw = sender.transfer(RECIPIENT, 1)
            try:
                answer = await send_and_wait(http, url, raw)
            except (aiohttp.ClientError, ConnectionError):
                return
            assert (answer["check_tx"]["code"], answer["tx_result"]["code"]) == (0, 0), answer
            settled.append(raw)
            news.put_nowait(None)


async def test_kill_minus_nine_under_load_loses_no_settled_transaction(tmp_path: Path) -> None:
    rng = random.Random(1)
    senders = [Sender.numbered(n) for n in range(1, 9)]
    init_with(tmp_path, senders)
    settled: list[bytes] = []
    for _ in range(4):
        node = NodeProcess.start(tmp_path)
        async with aiohttp.ClientSession() as http:
            for sender in senders:
                sender.sequence = (await _proved_account(http, node.url, sender.address)).sequence
        news: asyncio.Queue[None] = asyncio.Queue()
        tasks = [asyncio.create_task(_load(node.url, sender, settled, news)) for sender in senders]
        for _ in range(20):
            await asyncio.wait_for(news.get(), 60)
        await asyncio.sleep(rng.random() / 20)
        node.kill()
        await asyncio.gather(*tasks)

    node = NodeProcess.start(tmp_path)
    try:
        async with aiohttp.ClientSession() as http:
            await _until_quiet(http, node.url)
            for raw in settled:
                found = await call(http, node.url, "tx", hash=to_base64(tx_hash(raw)), prove=True)
                assert found["tx_result"]["code"] == 0
            sequences = [(await _proved_account(http, node.url, one.address)).sequence for one in senders]
            received = (await _proved_account(http, node.url, RECIPIENT)).balance_udllm
            assert received == sum(sequences) >= len(settled) >= 80
    finally:
        assert node.stop() == 0


async def test_two_terminals_share_a_wallet(tmp_path: Path) -> None:
    sender = Sender.numbered(1)
    init_with(tmp_path, [sender])
    raws = [sender.transfer(RECIPIENT, 1) for _ in range(6)]
    node = NodeProcess.start(tmp_path)
    try:
        async with aiohttp.ClientSession() as http:
            order = [3, 1, 0, 2, 5, 4]
            answers = await asyncio.gather(
                *(call(http, node.url, "broadcast_tx_sync", tx=to_base64(raws[n])) for n in order)
            )
            assert [one["code"] for one in answers] == [0] * 6
            await _until_quiet(http, node.url)
            assert (await _proved_account(http, node.url, sender.address)).sequence == 6
    finally:
        assert node.stop() == 0
