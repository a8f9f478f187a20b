"""Several workers, none of which is reached without a relay, answer together: client to stage, stage to stage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from light_node.relay.urls import RelayUrl
from local_worker import next_stage
from local_worker.relays import RelayPlaces
from tests.e2e.stages import LIMITS, Stages, Worker, stages_of, whole_answer
from tests.full_node.relay.rig import running_relay
from tests.local_worker.packages.tiny_models import SHAPES

PROMPT = [1, *(300 + 7 * n % 200 for n in range(300))]
COUNT = 12


@asynccontextmanager
async def behind(relay: RelayUrl, stages: Stages, worker: Worker) -> AsyncIterator[None]:
    """Close a worker's own door, and put it behind a relay."""
    await worker.server.close("it is reached elsewhere")
    places = RelayPlaces((relay,), worker.keys.service, worker.server.on_connection, LIMITS)
    record = stages.chain.providers[worker.provider]
    stages.chain.providers[worker.provider] = replace(record, endpoints=places.endpoints)
    task = asyncio.create_task(places.run())
    await places.wait_for_one()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        await places.close()


async def test_three_stages_behind_one_relay_say_what_the_whole_model_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every link counts as fast, however busy the machine is: hidden states go unrounded, and tokens are equal."""
    monkeypatch.setattr(next_stage, "FAST_BYTES_PER_S", 0)
    async with stages_of(tmp_path, SHAPES["llama"]) as stages, running_relay() as running:
        workers = [await stages.start(*cut) for cut in ((0, 1), (1, 3), (3, 4))]
        async with (
            behind(running.url, stages, workers[0]),
            behind(running.url, stages, workers[1]),
            behind(running.url, stages, workers[2]),
        ):
            asking = stages.client(1, [(one, None) for one in workers])
            assert await asking.answer(PROMPT, COUNT) == await whole_answer(stages, PROMPT, COUNT)
            assert [one.form for one in asking.lineup.links] == ["f32", "f32"]
            assert running.relay.streams == 5, "the client's with each stage, and each stage's with the next"
            for worker in workers:
                leg = asking.lineup.ledger.leg(worker.provider)
                assert leg.acked == leg.promised
            await asking.leave()
