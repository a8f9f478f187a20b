"""A stage whose engine becomes slow while rows go from engine to engine: it is routed around, and nobody else is."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from dllm_chat.session import pace
from local_worker.engine.client import Engine
from local_worker.engine.messages import LaneAnswer, Ticket
from local_worker.engine.sequence import Sequence
from tests.e2e.stages import Worker, stages_of, whole_answer
from tests.local_worker.packages.tiny_models import SHAPES

PROMPT = [1, *(300 + 7 * n % 200 for n in range(40))]
CUTS = ((0, 1), (1, 3), (3, 4))
COUNT = 68
"""Windows that begin behind enough timed rows: at row 80 and at 96. No line begun there gets as far as a judgement."""
SLOW_FROM = 18
"""Tokens: lanes stand, and the last stage tells the first what is likeliest."""
STOPPED_S = 0.15
"""Many times what a row takes at any stage, on a machine that is busy with other things as well."""
RUNNING_S = 0.003
"""About a row's time: so most rows find the engine stopped."""


@asynccontextmanager
async def slowed(worker: Worker) -> AsyncIterator[None]:
    """Its engine runs only now and then, lanes and all; its service is as quick as ever."""
    pid = cast(Engine, worker.engine.current())._process.pid

    async def pulses() -> None:
        while True:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(STOPPED_S)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(RUNNING_S)

    task = asyncio.create_task(pulses())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_the_stage_that_becomes_slow_is_routed_around_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(pace, "SLOW_S", STOPPED_S / 3)
    sent, real = 0, Sequence.over_lanes

    async def counted(
        sequence: Sequence, first: int, ticket: Ticket, *, token: int = -1, top_k: int = 1
    ) -> LaneAnswer:
        nonlocal sent
        answer = await real(sequence, first, ticket, token=token, top_k=top_k)
        sent += answer.sent
        return answer

    monkeypatch.setattr(Sequence, "over_lanes", counted)
    async with stages_of(tmp_path, SHAPES["llama"]) as stages:
        serving = [await stages.start(*cut) for cut in CUTS]
        standbys = [await stages.start(*cut) for cut in CUTS]
        expected = await whole_answer(stages, PROMPT, COUNT)
        asking = stages.client(1, list(zip(serving, standbys, strict=True)))
        tokens, found = asking.tokens(PROMPT, COUNT), []
        async for token in tokens:
            found.append(token)
            if len(found) == SLOW_FROM:
                break
        before = sent
        async with slowed(serving[at]):
            async for token in tokens:
                found.append(token)
                if not asking.changes:
                    slow_rows, over_lanes = len(found) - SLOW_FROM, sent - before
        assert found == expected
        assert asking.changes == [(serving[at].provider, standbys[at].provider)]
        assert asking.lineup.saved.failed == (), "nobody is rated for being slow"
        assert over_lanes > slow_rows, "two stages of three hand rows on, over lanes that are slow as well"
        await asking.lineup.close("the test is over")
