"""A quantised model's answer goes on to the bit where its rows are computed anew: in batches of the kind they had."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from tests.e2e.stages import Asking, Stages, Worker, stages_of, until
from tests.local_worker.packages.tiny_models import Shape

QUANTISED = Shape(
    "llama, Q8_0",
    "llama",
    layers=6,
    n_embd=256,
    n_ff=256,
    heads=4,
    kv_heads=2,
    head=64,
    kind=gguf.GGMLQuantizationType.Q8_0,
)
PROMPT = [1, *(300 + 7 * n % 200 for n in range(99))]
"""Long enough that llama.cpp computes its attention in tiles."""
COUNT, KILLED_BEHIND = 100, 80
"""So many rows of the answer, too, if they were replayed at once."""
ROUTES = {"stages": ((0, 2), (2, 4), (4, 6)), "whole": ((0, 6),)}


async def heard(asking: Asking, stages: Stages, victim: Worker | None) -> list[tuple[int, float]]:
    """Tokens, and by how much each was likelier than the next one."""
    found: list[int] = []
    session = asking.lineup.saved.route.session
    async for token in asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) == KILLED_BEHIND and victim is not None:
            await until(
                lambda: (
                    sum(session in one.server._hosts for one in stages.workers) > len(asking.lineup.providers)
                )
            )
            await victim.die()
    margins = list(asking.margins)
    await asking.leave()
    return list(zip(found, margins, strict=True))


@pytest.mark.parametrize(("way", "victim"), [("whole", 0), ("stages", 0), ("stages", 1), ("stages", 2)])
async def test_logits_behind_a_replay_are_those_of_an_answer_that_nothing_happened_to(
    tmp_path: Path, way: str, victim: int
) -> None:
    async with stages_of(tmp_path, QUANTISED) as stages:
        serving = [await stages.start(*cut) for cut in ROUTES[way]]
        standbys = [await stages.start(*cut) for cut in ROUTES[way]]
        route = list(zip(serving, standbys, strict=True))
        undisturbed = await heard(stages.client(1, route), stages, None)
        asking = stages.client(2, route)
        assert await heard(asking, stages, serving[victim]) == undisturbed
        assert asking.changes == [(serving[victim].provider, standbys[victim].provider)]
