"""One answer over three stages on loopback ÷ llama.cpp whole with the same threads.

A greedy answer, as the peer's; and one of second likeliest tokens, whose rows nobody can begin before the client asks.
All three go on in turn, a few tokens each: the speed of memory that is shared with others drifts by a tenth in seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Iterator

from benchmarks.chunk_models import MODELS, ChunkModel
from benchmarks.chunk_race import STRAIGHT, WHOLE, prompt_of, race
from benchmarks.runner import Result

NAME = "chunks-one-stream"
TURNS = 24


def run() -> Iterator[Result]:
    """Tokens a second, for each model; the tokens must be the same."""
    for model in MODELS:
        yield from asyncio.run(_measure(model))


async def _measure(model: ChunkModel) -> list[Result]:
    burst, prompt = max(4, model.tokens // 4), prompt_of(0)
    most = (1 + TURNS) * (1 + burst)
    ours, unguessed, theirs = [], [], []
    async with race(model) as both:
        greedy, other = await both.route.client(1, STRAIGHT), await both.route.client(2, STRAIGHT)
        other.rank = 1
        said, said_other = greedy.tokens(prompt, most + 1), other.tokens(prompt, most + 1)
        first = await anext(said), await asyncio.to_thread(both.peer.begin, prompt)
        tokens, expected = [first[0]], [first[1]]
        await anext(said_other)
        for turn in range(1 + TURNS):
            mine, mine_s = await _burst(said, burst)
            _, unguessed_s = await _burst(said_other, burst)
            steps = await asyncio.to_thread(both.peer.go_on, 1 + burst)
            tokens += mine
            expected += [token for _, token in steps]
            if turn:
                ours.append(1 / mine_s)
                unguessed.append(1 / unguessed_s)
                theirs.append(1 / statistics.median(seconds for seconds, _ in steps[1:]))
        await greedy.leave()
        await other.leave()
    if tokens != expected:
        raise RuntimeError(f"{model.name}: the stages and the whole model do not say the same")
    return [
        Result.of_turns(f"{NAME}{kind}-{model.name}", speeds, "tokens/s", WHOLE, theirs)
        for kind, speeds in (("", ours), ("/unguessed", unguessed))
    ]


async def _burst(answer: AsyncIterator[int], count: int) -> tuple[list[int], float]:
    """The next tokens of an answer, and the median second that one took; the first is not timed: it finds caches that
    others have filled.
    """
    tokens, at_s = [], []
    for _ in range(1 + count):
        tokens.append(await anext(answer))
        at_s.append(time.perf_counter())
    return tokens, statistics.median(later - earlier for earlier, later in itertools.pairwise(at_s))
