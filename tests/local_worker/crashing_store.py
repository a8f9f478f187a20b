"""Stores vouchers as fast as it can and says so, until somebody kills it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from dllm_protocol.pricing import RowCounts
from dllm_protocol.session.provider import Standing
from local_worker.store import Store


async def main(path: Path) -> None:
    store = Store(path)
    for number in range(1, 1_000_000):
        await store.put(b"\1" * 32, Standing(None, RowCounts(number, 0, 0, 0)), number, number)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


asyncio.run(main(Path(sys.argv[1])))
