"""Transfers that a solo node finalises a second, beside the signatures that libsodium verifies a second.

A real node process on loopback gets signed transfers of many accounts over one websocket, as fast as it takes them; the
clock stops when the last one is in a committed block and the proof block after it is there. Signing is done before. The
limit is how many of the same transactions' signatures this machine verifies on one core, measured between the rounds.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from benchmarks.runner import Result, interleaved_medians
from benchmarks.transfers import numbered_signers, signed_transfer
from dllm_protocol.address import address_of
from dllm_protocol.genesis import GENESIS_VERSION, Genesis, GenesisAccount, GenesisValidator, chain_id_of
from dllm_protocol.hashing import Tag
from dllm_protocol.json_shape import to_base64
from dllm_protocol.params import NETWORK_PARAMS
from dllm_protocol.signing import verify_tagged
from dllm_protocol.transaction import Transaction

NAME = "solo-transfers"
SENDERS = 2_000
IDLE_ACCOUNTS = 100_000
TRANSFERS_A_ROUND = 10_000
ROUNDS = 3
IN_FLIGHT = 4_000
VERIFIED_A_ROUND = 5_000
_POLLS_MAX = 10_000
_NODE = [sys.executable, "-c", "from full_node.cli import run; run()"]


@dataclass(frozen=True, slots=True)
class _Load:
    """Everything a measurement needs."""

    genesis: Genesis
    rounds: list[list[bytes]]


def run() -> Iterator[Result]:
    """Starts a node in a folder of its own, drives it, stops it."""
    with tempfile.TemporaryDirectory(prefix="dllm-bench-") as folder:
        home = Path(folder) / "node"
        load = _prepare(_public_key(home))
        genesis_file = Path(folder) / "genesis"
        genesis_file.write_bytes(load.genesis.encode())
        _node("init", "--home", str(home), "--genesis", str(genesis_file))
        process = subprocess.Popen(
            [*_NODE, "start", "--home", str(home), "--lifeline"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address = json.loads(process.stdout.readline())["address"]
            rounds = iter(load.rounds)
            ours, limit = interleaved_medians(
                lambda: asyncio.run(_finalised_a_second(address, next(rounds))),
                lambda: _verified_a_second(load.rounds[0][:VERIFIED_A_ROUND]),
                rounds=ROUNDS,
            )
        finally:
            process.stdin.close()
            process.wait()
            process.stdout.close()
    yield Result.of(NAME, ours, "tx/s", "libsodium verifications on one core", limit)
    yield Result.of(f"{NAME}/target", ours, "tx/s", "required of a solo chain", 1_000.0)


def _node(*arguments: str) -> str:
    return subprocess.run([*_NODE, *arguments], check=True, capture_output=True, text=True).stdout


def _public_key(home: Path) -> bytes:
    return bytes.fromhex(json.loads(_node("key", "--home", str(home), "--json"))["data"]["public_key"])


def _prepare(validator_key: bytes) -> _Load:
    signers = numbered_signers(SENDERS)
    accounts = [GenesisAccount(address_of(one.public_key), 1_000_000_000) for one in signers]
    accounts += [GenesisAccount(b"idle" + number.to_bytes(16, "big"), 1) for number in range(IDLE_ACCOUNTS)]
    params = replace(NETWORK_PARAMS, heartbeat_ms=3_600_000, max_validators=1)
    staker = address_of(validator_key)
    accounts.append(GenesisAccount(staker, params.min_stake_udllm))
    genesis = Genesis(
        version=GENESIS_VERSION,
        name="bench",
        genesis_time_ms=time.time_ns() // 1_000_000,
        address_prefix="local",
        params=params,
        accounts=tuple(sorted(accounts, key=lambda one: one.address)),
        models=(),
        validators=(GenesisValidator(validator_key, staker, params.min_stake_udllm),),
        nonce=os.urandom(32),
    )
    chain_id = chain_id_of(genesis)
    each = TRANSFERS_A_ROUND // SENDERS
    rounds = [
        [
            signed_transfer(chain_id, signers[place], number * each + turn, signers[place - 1])
            for turn in range(each)
            for place in range(SENDERS)
        ]
        for number in range(ROUNDS + 1)
    ]
    return _Load(genesis, rounds)


async def _finalised_a_second(address: str, raws: list[bytes]) -> float:
    messages = [
        json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": "broadcast_tx_sync", "params": {"tx": to_base64(raw)}}
        )
        for raw in raws
    ]
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"ws://{address}/websocket", max_msg_size=0) as calls,
    ):
        before = await _sequences_spent(http, address)
        free = asyncio.Semaphore(IN_FLIGHT)
        started = time.perf_counter()
        reader = asyncio.create_task(_read_answers(calls, len(raws), free))
        for message in messages:
            await free.acquire()
            await calls.send_str(message)
        await reader
        for _ in range(_POLLS_MAX):
            if await _sequences_spent(http, address) >= before + len(raws):
                break
            await asyncio.sleep(0.005)
        else:
            raise RuntimeError("the node did not put every transfer into a block")
        return len(raws) / (time.perf_counter() - started)


async def _read_answers(calls: aiohttp.ClientWebSocketResponse, count: int, free: asyncio.Semaphore) -> None:
    for _ in range(count):
        answer = json.loads(await calls.receive_str())
        if answer.get("result", {}).get("code") != 0:
            raise RuntimeError(f"the node refused a transfer: {answer}")
        free.release()


async def _sequences_spent(http: aiohttp.ClientSession, address: str) -> int:
    """Transactions in blocks whose state root stands in a header already."""
    async with http.get(f"http://{address}/blockchain") as response:
        last = int((await response.json())["result"]["last_height"])
    total = 0
    for top in range(last - 1, 0, -20):
        low = max(1, top - 19)
        async with http.get(f"http://{address}/blockchain?minHeight={low}&maxHeight={top}") as response:
            metas = (await response.json())["result"]["block_metas"]
        total += sum(int(meta["num_txs"]) for meta in metas)
    return total


def _verified_a_second(raws: list[bytes]) -> float:
    decoded = [Transaction.decode(raw) for raw in raws]
    signed = [(one.body.public_key, Tag.TRANSACTION, one.body.encode(), one.signature) for one in decoded]
    started = time.perf_counter()
    if not all(verify_tagged(*one) for one in signed):
        raise RuntimeError("a signature does not fit")
    return len(raws) / (time.perf_counter() - started)
