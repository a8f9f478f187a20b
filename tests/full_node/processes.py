"""Real node processes on loopback, and transfers for them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from dllm_protocol.actions import Transfer
from dllm_protocol.address import address_of, encode_address
from dllm_protocol.json_shape import to_base64
from dllm_protocol.signing import SeedSigner
from dllm_protocol.transaction import make_body, sign_transaction

NODE = [sys.executable, "-c", "from full_node.cli import run; run()"]
FEE_UDLLM = 100_000


def dllm_node(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs `dllm-node` to its end."""
    return subprocess.run(
        [*NODE, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


@dataclass
class NodeProcess:
    """A running `dllm-node start`."""

    process: subprocess.Popen[str]
    address: str
    chain_id: str

    @classmethod
    def start(cls, home: Path, *arguments: str, program: Sequence[str] = NODE) -> NodeProcess:
        """Starts a node and waits until it listens."""
        process = subprocess.Popen(
            [*program, "start", "--home", str(home), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the node did not start"
        said = json.loads(line)
        return cls(process, said["address"], said["chain_id"])

    @property
    def url(self) -> str:
        """Where its RPC is."""
        return f"http://{self.address}"

    def end(self) -> None:
        """Makes sure that it is gone, however the test went."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def stop(self) -> int:
        """Stops it in order; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.close()

    def close(self) -> int:
        """Waits for its end."""
        status = self.process.wait(60)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        return status


@dataclass
class Sender:
    """An account that sends transfers."""

    signer: SeedSigner
    chain_id: str = ""
    sequence: int = 0

    @classmethod
    def numbered(cls, number: int) -> Sender:
        """The same sender every time."""
        return cls(SeedSigner(bytes([number]) * 32))

    @property
    def address(self) -> bytes:
        """Its account."""
        return address_of(self.signer.public_key)

    @property
    def funding(self) -> str:
        """What `init --account` is told."""
        return f"{encode_address('local', self.address)}=1000"

    def transfer(self, recipient: bytes, amount_udllm: int) -> bytes:
        """The next transaction."""
        body = make_body(
            self.chain_id,
            self.address,
            self.signer.public_key,
            self.sequence,
            [Transfer(recipient, amount_udllm)],
            fee_udllm=FEE_UDLLM,
        )
        self.sequence += 1
        return sign_transaction(self.signer, body).encode()


def init_with(home: Path, senders: list[Sender]) -> str:
    """A folder whose chain funds the senders; returns the chain id."""
    options: list[str] = []
    for sender in senders:
        options += ["--account", sender.funding]
    done = dllm_node("init", "--home", home, "--json", *options)
    assert done.returncode == 0, done.stderr
    chain_id: str = json.loads(done.stdout)["data"]["chain_id"]
    for sender in senders:
        sender.chain_id = chain_id
    return chain_id


async def call(http: aiohttp.ClientSession, url: str, method: str, **params: Any) -> Any:
    """One call; the result."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    async with http.post(url, json=body) as response:
        answer = await response.json()
    assert "error" not in answer, answer
    return answer["result"]


async def send_and_wait(http: aiohttp.ClientSession, url: str, raw: bytes) -> Any:
    """Hands a transaction in and waits for its block."""
    return await call(http, url, "broadcast_tx_commit", tx=to_base64(raw))
