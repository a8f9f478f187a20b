"""``python -m benchmarks.stage_process …``: one stage's worker as a process of its own, over a chain in memory.

It prints its endpoint and how many sequences it holds, then takes one JSON object a line with all providers and
sessions, and answers each with a line. It ends with stdin. Engine, stage server, sealed channels, vouchers and ledger
are the worker's own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.stage_world import StageSeat, build
from dllm_protocol.model_manifest import Manifest
from local_worker.capacity import reserve_of
from local_worker.engine_host import EngineHost, EngineOptions
from local_worker.garbage import freeze_started
from local_worker.memory import MemoryWatch, free_memory
from local_worker.row_room import RowMemory
from local_worker.sequences import SequencePool
from local_worker.stage_server import StageServer
from local_worker.store import Store
from local_worker.workbench import Workbench
from tests.e2e.stages import LIMITS, keys_of, provider_of
from tests.local_worker.doubles import ChainDouble


async def serve(chosen: argparse.Namespace) -> None:
    """Serve until stdin ends."""
    manifest = Manifest.decode(chosen.manifest.read_bytes())
    chain = ChainDouble(b"\1" * 20)
    home: Path = chosen.home
    engine = EngineHost(
        EngineOptions(
            chosen.chunk, home / "engine.log", chosen.context_rows, chosen.sequences, chosen.threads
        )
    )
    info = (await engine.start()).info
    pool = SequencePool(engine, time.monotonic, MemoryWatch(time.monotonic).shortage)
    engine.on_new_engine = pool.forget_all
    store = Store(home / "worker.db")

    async def remember(session: bytes, standing: Any) -> None:
        await store.put(session, standing, 0, 0)

    bench = Workbench(engine, pool, b"", info.context_rows, remember, lambda: False, lambda rows: None)
    server = StageServer(
        chain=chain,
        keys=keys_of(chosen.number),
        provider=provider_of(chosen.number),
        manifest=manifest,
        bench=bench,
        store=store,
        limits=LIMITS,
        row_memory=RowMemory.within(reserve_of(free_memory())),
    )
    port = await server.listen("127.0.0.1", 0)
    freeze_started()  # as a worker does
    print(json.dumps({"endpoint": f"ws://127.0.0.1:{port}", "sequences": info.sequences}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        told = json.loads(line)
        seats = [StageSeat(*seat) for seat in told["seats"]]
        build(chain, manifest, seats, {int(seed): way for seed, way in told["sessions"].items()})
        print("built", flush=True)
    await server.close("the benchmark is over")
    await engine.close()
    await store.close()


def main() -> None:
    """Parse and serve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stage_process", description=__doc__)
    for name in ("--chunk", "--manifest", "--home"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--threads", type=int, help="else chosen")
    for name in ("--context-rows", "--sequences"):
        parser.add_argument(name, type=int, help="else as memory allows")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
