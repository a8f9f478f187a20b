"""What the benchmarks of routes share: a route over three processes beside llama.cpp whole, asked in turn.

Whatever else the machine does slows both. What counts of one stream is a median of its tokens, so that a pause which
another process causes counts as the token that it hit.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chunk_models import ChunkModel
from benchmarks.llama_peer import LlamaPeer
from benchmarks.stage_route import StageRoute, route_over
from benchmarks.stage_world import Way
from local_worker.engine.process import default_threads
from tests.e2e.stages import Asking

CONTEXT_ROWS = 1280
STREAMS = 8
PROMPT = [300 + at for at in range(32)]
WARM_TOKENS = 4
"""At the start of an answer: what a prompt emptied out of the caches."""
STRAIGHT: Way = [(0, None), (1, None), (2, None)]
WHOLE = "llama.cpp whole, same threads"


@dataclass(frozen=True, slots=True)
class Race:
    """Both sides, started."""

    model: ChunkModel
    route: StageRoute
    peer: LlamaPeer


@asynccontextmanager
async def race(
    model: ChunkModel,
    *,
    round_trip_s: float = 0.0,
    context_rows: int = CONTEXT_ROWS,
    sequences: int = STREAMS,
    same_threads: bool = True,
) -> AsyncIterator[Race]:
    """Three stages' workers and the peer, each a process of its own.

    Args:
        same_threads: workers compute with the peer's threads; else with those that they choose.
    """
    threads = default_threads()
    peer = await asyncio.to_thread(
        lambda: LlamaPeer(model.path, threads=threads, context_rows=context_rows, sequences=sequences)
    )
    try:
        with tempfile.TemporaryDirectory(prefix="dllm-bench-", ignore_cleanup_errors=True) as folder:
            async with route_over(
                model,
                Path(folder),
                threads=threads if same_threads else None,
                context_rows=context_rows,
                sequences=sequences,
                round_trip_s=round_trip_s,
            ) as route:
                yield Race(model, route, peer)
    finally:
        peer.close()


async def timed(client: Asking, prompt: Sequence[int], count: int) -> tuple[list[int], list[float]]:
    """An answer's tokens, and when each was there, in seconds."""
    tokens, at_s = [], []
    async for token in client.tokens(prompt, count):
        tokens.append(token)
        at_s.append(time.perf_counter())
    return tokens, at_s


def median_token_s(at_s: Sequence[float]) -> float:
    """Of the steady part of an answer."""
    steady = at_s[WARM_TOKENS:]
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(steady))


def prompt_of(number: int, rows: int = len(PROMPT)) -> list[int]:
    """A prompt that no other begins like."""
    return [300 + number, *(300 + (7 * at + number) % 20000 for at in range(rows - 1))]
