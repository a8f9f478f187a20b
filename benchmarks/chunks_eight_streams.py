"""Eight answers at once over three stages on loopback ÷ llama.cpp's own decoding of eight sequences in one batch."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator

from benchmarks.chunk_models import MODELS, ChunkModel
from benchmarks.chunk_race import STRAIGHT, STREAMS, WARM_TOKENS, prompt_of, race, timed
from benchmarks.runner import Result

NAME = "chunks-eight-streams"
_PROMPT_ROWS = 8
"""Few: eight long prompts at once would be waited for longer than a client waits for a stage."""


def run() -> Iterator[Result]:
    """Tokens a second of all together, for each model."""
    for model in MODELS:
        yield asyncio.run(_measure(model))


async def _measure(model: ChunkModel) -> Result:
    ours, theirs = [], []
    async with race(model) as both:
        clients = [await both.route.client(1 + number, STRAIGHT) for number in range(STREAMS)]
        for number in range(1 + model.rounds):
            prompts = [prompt_of(STREAMS * number + stream, _PROMPT_ROWS) for stream in range(STREAMS)]
            answers = await asyncio.gather(
                *(
                    timed(client, prompt, WARM_TOKENS + model.tokens)
                    for client, prompt in zip(clients, prompts, strict=True)
                )
            )
            for client in clients:
                await client.leave()
            # From when the last one is steady to when the first one ends: all of them decode in between.
            began = max(at_s[WARM_TOKENS] for _, at_s in answers)
            ended = min(at_s[-1] for _, at_s in answers)
            count = sum(began < moment <= ended for _, at_s in answers for moment in at_s)
            step_s, _ = await asyncio.to_thread(both.peer.answers, prompts, model.tokens)
            if number:
                ours.append(count / (ended - began))
                theirs.append(STREAMS / step_s)
    return Result.of(
        f"{NAME}-{model.name}",
        statistics.median(ours),
        "tokens/s",
        "llama.cpp, eight sequences in a batch, same threads",
        statistics.median(theirs),
    )
