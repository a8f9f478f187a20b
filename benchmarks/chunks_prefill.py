"""Time to the first token behind a prompt of 1,000 rows over three stages ÷ llama.cpp's prefill of the same rows.

On one machine the stages share its cores, so that they gain nothing by working on different slices at the same time.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator

from benchmarks.chunk_models import MODELS, ChunkModel
from benchmarks.chunk_race import STRAIGHT, prompt_of, race, timed
from benchmarks.runner import Result

NAME = "chunks-prefill"
ROWS = 1000


def run() -> Iterator[Result]:
    """Seconds, for each model."""
    for model in MODELS:
        yield asyncio.run(_measure(model))


async def _measure(model: ChunkModel) -> Result:
    ours, theirs = [], []
    async with race(model, sequences=1) as both:
        client = await both.route.client(1, STRAIGHT)
        await timed(client, prompt_of(0), 2)
        for number in range(model.prefill_rounds):
            prompt = prompt_of(1 + number, ROWS)
            started = time.perf_counter()
            _, at_s = await timed(client, prompt, 1)
            ours.append(at_s[0] - started)
            whole_s, _ = await asyncio.to_thread(both.peer.prefill, prompt)
            theirs.append(whole_s)
        await client.leave()
    return Result.of(
        f"{NAME}-{model.name}",
        statistics.median(ours),
        "s",
        "llama.cpp's prefill, same threads",
        statistics.median(theirs),
    )
