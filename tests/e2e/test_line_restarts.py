"""A line whose parts begin anew in the middle of an answer: an engine, a worker, or the client itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dllm_chat.session.front_desk import LegFailed
from dllm_chat.session.line import Line
from dllm_protocol.session.acceptance import Standing
from local_worker.session_host import SessionHost
from tests.e2e.stages import ACCOUNT, Asking, Stages, Worker, stages_of, until, whole_answer
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


def require_agreement(asking: Asking, workers: list[Worker]) -> None:
    """Client and stages count the same rows, and nobody is promised a row that was not asked for."""
    session = asking.lineup.saved.route.session
    for worker in workers:
        leg, standing = asking.lineup.ledger.leg(worker.provider), worker.server._hosts[session].leg.standing
        assert leg.used == standing.served
        assert leg.acked == leg.promised


@pytest.mark.parametrize("is_acknowledged", [True, False])
async def test_a_worker_that_was_killed_and_is_back_goes_on_with_what_it_stored(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, is_acknowledged: bool
) -> None:
    """Its newest voucher counts, whether its ack went out or not; rows that it gave are paid once."""
    serving = [await stages.start(*cut) for cut in CUTS]
    victim = serving[1]
    asking, found = stages.client(1, [(one, None) for one in serving]), list[int]()
    session = asking.lineup.saved.route.session

    async def stored_and_dead(
        self: SessionHost, before: asyncio.Task[None] | None, standing: Standing
    ) -> None:
        if victim.server._hosts.get(session) is self and len(found) > 5 and not victim.is_dead:
            await self._bench.store(self.session, standing)
            await victim.die()
        else:
            await store(self, before, standing)

    store = SessionHost._store_and_acknowledge
    monkeypatch.setattr(SessionHost, "_store_and_acknowledge", stored_and_dead)
    with pytest.raises(LegFailed, match=r"nobody is left who answers for layers \[1, 3\)"):
        async for token in asking.tokens(PROMPT, 2 * COUNT):
            found.append(token)
            if len(found) == 8 and is_acknowledged:
                await victim.die()
    await asking.leave()
    serving[1] = await stages.restart(victim)
    longer = [*PROMPT, *found]
    assert await asking.answer(longer, COUNT) == await whole_answer(stages, longer, COUNT)
    require_agreement(asking, [serving[0], serving[2]])
    leg, host = asking.lineup.ledger.leg(victim.provider), serving[1].server._hosts[session]
    assert leg.acked == leg.promised
    assert leg.used.covers(host.leg.standing.served), (
        "rows that it forgot since its newest voucher are paid, too"
    )
    # When it died, its engine may have computed the next row ahead of its order, and handed it on to be answered.
    assert leg.used.total - serving[1].rows - victim.rows in (0, 1), "each row is paid once"
    assert serving[1].rows == len(longer) + COUNT - 1, "all its rows were lost, and are computed once more"
    await asking.leave()
