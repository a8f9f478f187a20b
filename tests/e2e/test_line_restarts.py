"""A line whose parts begin anew in the middle of an answer: an engine, or the client itself."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dllm_chat.session.line import Line
from tests.e2e.stages import ACCOUNT, Stages, stages_of, until, whole_answer
from tests.local_worker.packages.tiny_models import SHAPES

PROMPT = [1, *(300 + 7 * n % 200 for n in range(40))]
COUNT = 12
CUTS = ((0, 1), (1, 3), (3, 4))


@pytest.fixture
async def stages(tmp_path: Path) -> AsyncIterator[Stages]:
    async with stages_of(tmp_path, SHAPES["llama"]) as made:
        yield made


@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_an_engine_that_dies_is_started_again_and_only_its_stage_computes_anew(
    stages: Stages, victim: int
) -> None:
    serving = [await stages.start(*cut) for cut in CUTS]
    asking = stages.client(1, [(one, None) for one in serving])
    found: list[int] = []
    async for token in asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) == 5:
            os.kill(serving[victim].engine.current()._process.pid, signal.SIGKILL)
            await until(lambda: serving[victim].engine.restarts > 0 and serving[victim].engine.alive)
    assert found == await whole_answer(stages, PROMPT, COUNT)
    replayed = [asking.lineup.ledger.leg(one.provider).used.replayed for one in serving]
    assert [bool(rows) for rows in replayed] == [index == victim for index in range(3)]
    await asking.leave()


async def test_a_client_that_dies_in_mid_answer_goes_on_in_the_same_session(stages: Stages) -> None:
    serving = [await stages.start(*cut) for cut in CUTS]
    route = [(one, None) for one in serving]
    asking, found = stages.client(1, route), []
    async for token in asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) == 5:
            break
    line = asking.lineup.decoder
    assert isinstance(line, Line)
    for leg in line.legs:
        leg._channel._link.abort()
    again = stages.client(1, route)
    (again._saved,) = again._chain.sessions.store.all(stages.chain.chain_id, ACCOUNT, open_only=True)
    n = again._saved.ledger.n
    again.lineup = again._new()
    assert await again.answer(PROMPT, COUNT) == await whole_answer(stages, PROMPT, COUNT)
    assert again.lineup.ledger.state.n > n > 0
    for one in serving:
        leg = again.lineup.ledger.leg(one.provider)
        assert leg.used.total == one.rows, "the rows from before the crash are paid for as well"
        assert leg.acked == leg.promised
    await again.leave()
