"""A stage's process is killed in the middle of an answer: how long the stream stands still, and which tokens change."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator

from benchmarks.chunk_models import MODELS, ChunkModel
from benchmarks.chunk_race import STRAIGHT, prompt_of, race
from benchmarks.runner import Result
from benchmarks.stage_world import Way

NAME = "failover"
LIMIT_S = 2.0
TOKENS = 24
_KILLED_BEHIND = 10
_PROMPT_ROWS = 200


def run() -> Iterator[Result]:
    """Seconds of the longest gap, with a standby that has its layers loaded; wrong tokens."""
    for model in MODELS:
        yield from asyncio.run(_measure(model))


async def _measure(model: ChunkModel) -> list[Result]:
    gaps_s: list[float] = []
    wrong = total = 0
    for victim in range(len(STRAIGHT)):
        async with race(model, sequences=4) as both:
            standby = await both.route.start(victim)
            way: Way = [(number, standby if number == victim else None) for number, _ in STRAIGHT]
            client = await both.route.client(1 + victim, way)
            prompt = prompt_of(victim, _PROMPT_ROWS)
            tokens: list[int] = []
            gap_s = 0.0
            loop = asyncio.get_running_loop()
            last_s = loop.time()
            async for token in client.tokens(prompt, TOKENS):
                now_s = loop.time()
                if len(tokens) >= _KILLED_BEHIND:
                    gap_s = max(gap_s, now_s - last_s)
                tokens.append(token)
                if len(tokens) == _KILLED_BEHIND:
                    both.route.kill(victim)
                last_s = now_s
            await client.leave()
            _, (expected,) = await asyncio.to_thread(both.peer.answers, [prompt], TOKENS)
            wrong += sum(one != other for one, other in zip(tokens, expected, strict=False))
            total += len(tokens)
            gaps_s.append(gap_s)
    name = f"{NAME}-{model.name}"
    return [
        Result.of(name, statistics.median(gaps_s), "s", "limit for the gap", LIMIT_S),
        Result.of(f"{NAME}/longest-{model.name}", max(gaps_s), "s", "limit for the gap", LIMIT_S),
        Result.of(f"{NAME}/wrong-{model.name}", wrong, "tokens", "all tokens of the three answers", total),
    ]
