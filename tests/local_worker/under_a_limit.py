"""A worker's engine and places under a memory limit, as a program of its own: prints what happened as one JSON object.

``python -m tests.local_worker.under_a_limit MODEL FOLDER``, started where the limit holds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from local_worker.engine.errors import EngineBusy
from local_worker.engine_host import EngineHost, EngineOptions
from local_worker.memory import FLOOR_BYTES, MemoryWatch, free_memory
from local_worker.sequences import SequencePool

PROMPT_ROWS = 300
_STEP_BYTES = 8 << 20


async def run(model: Path, folder: Path) -> dict[str, Any]:
    """Load, use every place, run short of memory, have some again."""
    host = EngineHost(EngineOptions(model, folder / "engine.log", None, None, 1))
    engine = await host.start()
    pool = SequencePool(host, time.monotonic, MemoryWatch(time.monotonic).shortage)
    told = {
        "sequences": engine.info.sequences,
        "kv_bytes": engine.info.kv_bytes,
        "bound": free_memory().bound,
    }
    sessions = [bytes([number]) * 32 for number in range(engine.info.sequences)]
    # Under load: everything that was promised is used, at once.
    await asyncio.gather(*(_decode(pool, session) for session in sessions[1:]))
    # Somebody else takes what is left, page by page.
    ballast: list[bytearray] = []
    while free_memory().free_bytes >= FLOOR_BYTES:
        ballast.append(bytearray(b"\1") * _STEP_BYTES)
    await asyncio.sleep(1.0)  # until the watch looks again
    try:
        pool.take(sessions[0])
        told["refused"] = ""
    except EngineBusy as error:
        told["refused"] = error.message
    await asyncio.gather(*(_decode(pool, session) for session in sessions[1:]))
    told["restarts"] = host.restarts
    ballast.clear()
    await asyncio.sleep(1.0)
    await _decode(pool, sessions[0])
    told["held_at_last"] = pool.held_rows(sessions[0])
    await host.close()
    return told


async def _decode(pool: SequencePool, session: bytes) -> None:
    held = pool.take(session)
    ids = [300 + at % 200 for at in range(PROMPT_ROWS)]
    try:
        await held.sequence.decode(0, ids, top_k=1, outputs="last")
    finally:
        held.note(0, ids)
        pool.give_back(held)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[2])))))
