"""``python -m benchmarks.light_memory FIRST LAST``: a light node verifies headers; its resident kB after each number.

The chain is signed as it is asked for and forgotten a few heights later, so what grows here is the client.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.signed_chain import CHAIN_ID, bench_signers, set_of, signed_headers
from dllm_protocol.block import SignedHeader
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import ValidatorSet
from light_node.client import LightClient, TrustOptions
from light_node.clock import SystemClock
from light_node.source import RpcSource
from light_node.trust_store import TrustStore

VALIDATORS = 1
KEPT = 8
MARGIN_S = 3_600


class Feed(RpcSource):
    """A node that has just made its newest block; it is never connected to anything."""

    def __init__(self, headers: Iterator[SignedHeader], members: ValidatorSet) -> None:
        super().__init__("ws://127.0.0.1:1/websocket")
        self._headers = headers
        self._members = members
        self._newest: dict[int, SignedHeader] = {}

    async def signed_header(self, height: int | None) -> SignedHeader:
        """A height, made if it is the next one; the newest when none is named."""
        while height is not None and height not in self._newest:
            made = next(self._headers)
            self._newest[made.header.height] = made
            self._newest.pop(made.header.height - KEPT, None)
        return self._newest[max(self._newest) if height is None else height]

    async def validators(self, height: int) -> ValidatorSet:
        """The same at every height."""
        del height
        return self._members


def resident_kb() -> int:
    """What this process has in memory now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("the system does not tell this process's memory")


async def _verify(first: int, last: int, store: Path) -> None:
    begins = Timestamp.from_ns(SystemClock().now().to_ns()).add_ms(-(last + MARGIN_S) * 1000)
    signers = bench_signers(VALIDATORS)
    feed = Feed(signed_headers(signers, begins), set_of(signers))
    root = await feed.signed_header(1)
    trust = TrustOptions(1, root.header.hash())
    client = LightClient(CHAIN_ID, trust, TrustStore(store, CHAIN_ID), feed, clock=SystemClock())
    try:
        for height in range(1, last + 1):
            await client.verified_header(height)
            if height in (first, last):
                print(resident_kb(), flush=True)
    finally:
        await client.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="dllm-bench-") as folder:
        asyncio.run(_verify(int(sys.argv[1]), int(sys.argv[2]), Path(folder) / "trust.db"))
