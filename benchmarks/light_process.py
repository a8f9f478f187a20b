"""``python -m benchmarks.light_process``: our light client as a process, to be compared with `cometbft light`.

Is told what to follow, says when its program is loaded, reads heights, one a line, and prints the verified header hash
of each. It does what `dllm light` does: primary, witness, store on disk, every rule.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from light_node.client import LightClient, TrustOptions
from light_node.clock import SystemClock
from light_node.source import RpcSource
from light_node.trust_store import TrustStore


class OurLight:
    """A running process of ours; also a context manager. The counterpart of `CometLight`."""

    def __init__(self, home: Path, chain_id: str, address: str, trust_height: int, trust_hash: str) -> None:
        """Start it and wait until its modules are loaded; nothing is opened or asked yet.

        Args:
            home: an empty folder for its store.
            chain_id: the chain to follow.
            address: host:port of the node that is primary and witness.
            trust_height: where its trust begins.
            trust_hash: upper hex of the header there.
        """
        home.mkdir(parents=True, exist_ok=True)
        told = [str(home / "trust.db"), chain_id, f"ws://{address}/websocket", trust_height, trust_hash]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.light_process", json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("our light client did not start")

    def __enter__(self) -> OurLight:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def header_hash(self, height: int) -> str:
        """Upper hex of the header that it has verified at a height."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{height}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"our light client ended at height {height}")
        return line


async def _follow(store: str, chain_id: str, url: str, trust_height: int, trust_hash: str) -> None:
    asked = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    print("loaded", flush=True)
    line = await asked.readline()
    client = LightClient(
        chain_id,
        TrustOptions(trust_height, bytes.fromhex(trust_hash)),
        TrustStore(Path(store), chain_id),
        RpcSource(url),
        [RpcSource(url)],
        clock=SystemClock(),
    )
    try:
        while height := line.strip():
            header = await client.verified_header(int(height))
            print(header.hash().hex().upper(), flush=True)
            line = await asked.readline()
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(_follow(*json.loads(sys.argv[1])))
