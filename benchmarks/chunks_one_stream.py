"""One answer over three stages on loopback ÷ llama.cpp whole with the same threads.

A greedy answer, as the peer's; and one of second likeliest tokens, whose rows nobody can begin before the client asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from benchmarks.chunk_models import MODELS, ChunkModel
from benchmarks.chunk_race import STRAIGHT, WARM_TOKENS, WHOLE, median_token_s, prompt_of, race, timed
from benchmarks.runner import Result

NAME = "chunks-one-stream"
TURNS = 15
"""Single answers differ by a fifth on a machine with neighbours."""


def run() -> Iterator[Result]:
    """Tokens a second, for each model; the tokens must be the same."""
    for model in MODELS:
        yield from asyncio.run(_measure(model))


async def _measure(model: ChunkModel) -> list[Result]:
    ours, unguessed, theirs = [], [], []
    async with race(model) as both:
        client = await both.route.client(1, STRAIGHT)
        for number in range(1 + TURNS):
            prompt = prompt_of(number)
            tokens, at_s = await timed(client, prompt, WARM_TOKENS + model.tokens)
            await client.leave()
            client.rank = 1
            _, unguessed_at_s = await timed(client, prompt, WARM_TOKENS + model.tokens)
            await client.leave()
            client.rank = 0
            whole_s, (expected,) = await asyncio.to_thread(both.peer.answers, [prompt], model.tokens)
            if tokens[: len(expected)] != expected[: len(tokens)]:
                raise RuntimeError(f"{model.name}: the stages and the whole model do not say the same")
            if number:
                ours.append(1 / median_token_s(at_s))
                unguessed.append(1 / median_token_s(unguessed_at_s))
                theirs.append(1 / whole_s)
    return [
        Result.of_turns(f"{NAME}{kind}-{model.name}", tokens, "tokens/s", WHOLE, theirs)
        for kind, tokens in (("", ours), ("/unguessed", unguessed))
    ]
