"""A stage's process is killed in the middle of an answer: how long the stream stands still, and which tokens change.

The standby has its layers loaded; the rows of prompt and answer it has to compute, so the gap grows with them. It
computes them in batches that round as theirs did; `moved` says how far llama.cpp moves logits where batches do not, on
this machine and with this model: a token that changes where the likeliest two are nearer than that is `close`.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.chunk_models import MODELS, ChunkModel
from benchmarks.chunk_race import STRAIGHT, Race, prompt_of, race
from benchmarks.runner import Result
from benchmarks.stage_world import Way

NAME = "failover"
LIMIT_S = 2.0
TOKENS = 24
_KILLED_BEHIND = 10
_PROMPT_ROWS, _LONG_PROMPT_ROWS = 64, 200


@dataclass
class _Found:
    """What came of killing each stage once."""

    gaps_s: list[float] = field(default_factory=list)
    wrong: int = 0
    """Answers' tokens that differ though the likeliest two were not close."""
    close: int = 0
    """Answers that went another way at a token where they were."""
    total: int = 0
    moved: float = 0.0
    """How far llama.cpp moved a logit by decoding rows together, at most."""

    def compare(
        self, tokens: Sequence[int], expected: Sequence[int], margins: Sequence[float], close: float
    ) -> None:
        """Behind a token that differs the whole answer is another one: nothing there is to be compared."""
        for token, other, margin in zip(tokens, expected, margins, strict=False):
            self.total += 1
            if token != other:
                self.close += margin <= close
                self.wrong += margin > close
                return


def run() -> Iterator[Result]:
    """Seconds of the longest gap of each answer; wrong tokens."""
    for model in MODELS:
        found, with_long = asyncio.run(_measure(model))
        limit, name = "limit for the gap", model.name
        yield Result.of(f"{NAME}-{name}", statistics.median(found.gaps_s), "s", limit, LIMIT_S)
        yield Result.of(f"{NAME}/longest-{name}", max(found.gaps_s), "s", limit, LIMIT_S)
        yield Result.of(f"{NAME}/200-rows-{name}", statistics.median(with_long.gaps_s), "s", limit, LIMIT_S)
        moved = max(found.moved, with_long.moved)
        yield Result.of(f"{NAME}/moved-{name}", moved, "of a logit", "a logit", 1.0)
        total = found.total + with_long.total
        for kind, count in (
            ("wrong", found.wrong + with_long.wrong),
            ("close", found.close + with_long.close),
        ):
            yield Result.of(f"{NAME}/{kind}-{name}", count, "tokens", "all tokens that were compared", total)


async def _measure(model: ChunkModel) -> tuple[_Found, _Found]:
    """With a question's prompt, and with a long one."""
    found, with_long = _Found(), _Found()
    for victim in range(len(STRAIGHT)):
        for into, rows in ((found, _PROMPT_ROWS), (with_long, _LONG_PROMPT_ROWS)):
            async with race(model, sequences=4, same_threads=False) as both:
                await _kill(both, victim, rows, into)
    return found, with_long


async def _kill(both: Race, victim: int, prompt_rows: int, into: _Found) -> None:
    standby = await both.route.start(victim)
    way: Way = [(number, standby if number == victim else None) for number, _ in STRAIGHT]
    client = await both.route.client(1 + victim, way)
    prompt = prompt_of(victim, prompt_rows)
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
    margins = list(client.margins)
    await client.leave()
    _, (expected,) = await asyncio.to_thread(both.peer.answers, [prompt], TOKENS)
    moved = await asyncio.to_thread(both.peer.shapes_differ_by, prompt, TOKENS)
    into.compare(tokens, expected, margins, 2 * moved)
    into.moved = max(into.moved, moved)
    into.gaps_s.append(gap_s)
