"""A real chain for workers: a node process with funded operators, and a client's account to open sessions from."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_chat.embedded.chain import make_genesis
from dllm_protocol.actions import OpenSession
from dllm_protocol.address import address_of
from dllm_protocol.assignment import session_id_of
from dllm_protocol.bundle import NetworkBundle, SignedBundle
from dllm_protocol.pricing import RowPrices
from dllm_protocol.signing import SeedSigner
from light_node.clock import SystemClock
from light_node.source import RpcSource
from local_worker.chain import LightChain

CLIENT = SeedSigner(b"client's seed of thirty-two bytes"[:32])
_NODE = [sys.executable, "-c", "from full_node.cli import run; run()"]
_WORKER = [sys.executable, "-m", "local_worker.cli"]
_NS_PER_MS = 1_000_000
_ANY_PRICE = RowPrices(10**9, 10**9, 10**9, 10**9)


async def data_of(command: list[str], *words: str) -> dict[str, Any]:
    """Run one of our programs with --json and return its data."""
    process = await asyncio.create_subprocess_exec(*command, *words, "--json", stdout=PIPE)
    out, _ = await process.communicate()
    envelope = json.loads(out)
    assert envelope["ok"], envelope
    return dict(envelope["data"])


@dataclass
class Worker:
    """A worker process and its home."""

    home: Path
    process: Process
    ready: dict[str, Any]

    def status(self) -> dict[str, Any]:
        return dict(json.loads((self.home / "status.json").read_text()))

    async def end_lifeline(self) -> int:
        """Let go of its stdin, and wait for its end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await self.process.wait()


@dataclass
class Network:
    """A chain with one node."""

    folder: Path
    node: Process
    chain: LightChain
    model: Path

    @classmethod
    async def start(cls, folder: Path, model: Path, workers: int) -> Network:
        """Found a chain on which the client and so many workers have money."""
        made = [await data_of(_WORKER, "init", "--home", str(folder / f"w{n}")) for n in range(workers)]
        validator = await data_of(_NODE, "key", "--home", str(folder / "node"))
        genesis = make_genesis(
            wallet=address_of(CLIENT.public_key),
            workers=[bytes.fromhex(keys["operator"]) for keys in made],
            validator=bytes.fromhex(validator["public_key"]),
            genesis_time_ms=SystemClock().now().to_ns() // _NS_PER_MS,
            nonce=b"\1" * 32,
        )
        (folder / "genesis").write_bytes(genesis.encode())
        await data_of(_NODE, "init", "--home", str(folder / "node"), "--genesis", str(folder / "genesis"))
        words = ("start", "--home", str(folder / "node"), "--lifeline")
        node = await asyncio.create_subprocess_exec(*_NODE, *words, stdin=PIPE, stdout=PIPE)
        assert node.stdout is not None
        url = f"ws://{json.loads(await node.stdout.readline())['address']}/websocket"
        source = RpcSource(url)
        while not (await source.status()).latest_height:  # noqa: ASYNC110  the first block is a moment away
            await asyncio.sleep(0.02)
        root = (await source.signed_header(1)).header
        await source.close()
        bundle = SignedBundle(NetworkBundle(1, genesis, 1, root.hash(), (url,), (), (), ""), b"", b"")
        (folder / "bundle").write_bytes(bundle.encode())
        return cls(folder, node, LightChain.open(bundle, CLIENT, folder / "client.db"), model)

    async def worker(self, number: int, *words: str) -> Worker:
        """Start a worker and wait until it serves."""
        home = self.folder / f"w{number}"
        command = [*_WORKER, "start", "--home", str(home), "--bundle", str(self.folder / "bundle")]
        command += [] if "--package" in words else ["--model", str(self.model)]
        command += ["--threads", "1", "--lifeline", "--json", *words]
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        assert process.stdout is not None
        told = json.loads(await process.stdout.readline())
        assert told["ok"], told
        return Worker(home, process, told["data"])

    async def open_session(self, key: SeedSigner, deposit_udllm: int = 1_000_000) -> bytes:
        """Have the chain assign a route for a new session."""
        await self.chain.send((OpenSession("tiny-model", key.public_key, _ANY_PRICE, (), deposit_udllm),))
        return session_id_of(address_of(CLIENT.public_key), key.public_key)

    async def close(self) -> None:
        """End the node in order."""
        await self.chain.close()
        assert self.node.stdin is not None
        self.node.stdin.close()
        await self.node.wait()
