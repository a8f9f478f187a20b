"""One answer over three stages with 50 ms of round trip between any two parties ÷ what the line allows at most.

A token's way is from the client to the first stage, from stage to stage, and from the last one back: four times half a
round trip. The bound is one token in that time and what llama.cpp takes for one. Nothing is guessed, for the client
takes the second likeliest token each time. The greedy answer beside it, whose next row the first stage begins when the
last one tells it what is likeliest, has three of the four ways.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator

from benchmarks.chunk_models import MODELS, ChunkModel
from benchmarks.chunk_race import STRAIGHT, WARM_TOKENS, median_token_s, prompt_of, race, timed
from benchmarks.runner import Result

NAME = "chunks-wan"
ROUND_TRIP_S = 0.05
TOKENS = 24
_ONE_WAYS = len(STRAIGHT) + 1


def run() -> Iterator[Result]:
    """Tokens a second, for each model."""
    for model in MODELS:
        yield from asyncio.run(_measure(model))


async def _measure(model: ChunkModel) -> list[Result]:
    ours: dict[str, list[float]] = {"": [], "/greedy": []}
    theirs = []
    async with race(model, round_trip_s=ROUND_TRIP_S) as both:
        client = await both.route.client(1, STRAIGHT)
        for number in range(1 + model.rounds // 2):
            prompt = prompt_of(number)
            for rank, seconds in zip((1, 0), ours.values(), strict=True):
                client.rank = rank
                _, at_s = await timed(client, prompt, WARM_TOKENS + TOKENS)
                await client.leave()
                if number:
                    seconds.append(median_token_s(at_s))
            whole_s, _ = await asyncio.to_thread(both.peer.answers, [prompt], TOKENS)
            if number:
                theirs.append(whole_s)
    bound_s = _ONE_WAYS * ROUND_TRIP_S / 2 + statistics.median(theirs)
    return [
        Result.of(
            f"{NAME}{kind}-{model.name}",
            1 / statistics.median(seconds),
            "tokens/s",
            f"{_ONE_WAYS} one-way delays and llama.cpp's token",
            1 / bound_s,
        )
        for kind, seconds in ours.items()
    ]
