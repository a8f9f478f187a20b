"""How many light blocks a client fetches from height 1 to the tip of a long chain whose validators stay the same.

The client, its store and the node's RPC are the real ones; only the counting source between them is not.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.chain_server import ShownChain, chain_server
from benchmarks.runner import Result
from dllm_protocol.block import SignedHeader
from light_node.client import LightClient, TrustOptions
from light_node.clock import SystemClock
from light_node.source import RpcSource
from light_node.trust_store import TrustStore

NAME = "light-skipping"
HEIGHTS = 20_000
VALIDATORS = 4
LIGHT_BLOCKS_WANTED = 3


class CountingSource(RpcSource):
    """A node whose light blocks are counted as they are fetched."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.fetched = 0

    async def signed_header(self, height: int | None) -> SignedHeader:
        """One light block: its validators are asked for by it."""
        self.fetched += 1
        return await super().signed_header(height)


async def _fetched(chain: ShownChain, store: Path) -> int:
    source = CountingSource(f"ws://{chain.address}/websocket")
    client = LightClient(
        chain.chain_id,
        TrustOptions(1, bytes.fromhex(chain.root_hash)),
        TrustStore(store, chain.chain_id),
        source,
        clock=SystemClock(),
    )
    try:
        tip = await client.sync()
    finally:
        await client.close()
    if tip.hash().hex().upper() != chain.tip_hash:
        raise RuntimeError(f"verified is header {tip.height}, the tip is {chain.height}")
    return source.fetched


def run() -> Iterator[Result]:
    """Root and tip are two; the limit leaves room for one more."""
    with (
        tempfile.TemporaryDirectory(prefix="dllm-bench-") as folder,
        chain_server(Path(folder), HEIGHTS, VALIDATORS) as chain,
    ):
        fetched = asyncio.run(_fetched(chain, Path(folder) / "trust.db"))
    yield Result.of(NAME, fetched, "blocks", f"allowed for {HEIGHTS} heights", LIGHT_BLOCKS_WANTED)
