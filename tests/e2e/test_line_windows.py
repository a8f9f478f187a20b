"""Guesses on their way through a line as a stage dies: the answer is exact, and what was decoded is what is paid."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dllm_chat.session.front_desk import LegFailed
from dllm_chat.session.line import Line
from dllm_protocol.messages import ROW_REPLAYED
from tests.e2e.stages import Stages, stages_of, until, whole_answer
from tests.local_worker.packages.tiny_models import SHAPES

PROMPT = [1, *(300 + 7 * n % 200 for n in range(40))]
COUNT, REST = 6, 8
CUTS = ((0, 1), (1, 3), (3, 4))
WRONG = [401, 402, 403]


@pytest.fixture
async def stages(tmp_path: Path) -> AsyncIterator[Stages]:
    async with stages_of(tmp_path, SHAPES["llama"]) as made:
        yield made


@pytest.mark.parametrize("victim", [0, 1, 2, None])
async def test_a_stage_dies_between_the_cancel_of_wrong_guesses_and_its_effect(
    stages: Stages, victim: int | None
) -> None:
    serving = [await stages.start(*cut) for cut in CUTS]
    standbys = [await stages.start(*CUTS[victim])] if victim is not None else []
    route = [(one, standbys[0] if index == victim else None) for index, one in enumerate(serving)]
    asking = stages.client(1, route)
    found = await asking.answer(PROMPT, COUNT)
    line = asking.lineup.decoder
    assert isinstance(line, Line)
    held, stuck = len(line.held), serving[1 if victim is None else victim]
    pid = stuck.engine.current()._process.pid
    os.kill(pid, signal.SIGSTOP)
    windows = [await line.send_window(held, [found[-1], *WRONG], 8)]
    windows.append(await line.send_window(held + 4, WRONG, 8))
    await until(lambda: all(leg.has_answered(windows[0]) for leg in line.legs[: serving.index(stuck)]))
    line.pass_over(windows)
    await line.cancel(windows)
    os.kill(pid, signal.SIGCONT)
    if victim is not None:
        await stuck.die()
    ids, row, more = [*PROMPT, *found], None, list[int]()
    decoder = asking.lineup.decoder
    assert decoder is not None
    while len(more) < REST:
        try:
            if row is None and victim is None:
                row = await decoder.decode_next(ids[-1], 8, position=held)
            elif row is None:
                row = await decoder.decode(ids, kind=ROW_REPLAYED, top_k=8)
            else:
                row = await decoder.decode_next(ids[-1], 8)
        except LegFailed as failure:
            decoder, row = await asking.lineup.replace(failure), None
            continue
        ids.append(row.ids[0])
        more.append(row.ids[0])
    await decoder.seal_turn()
    assert [*found, *more] == await whole_answer(stages, PROMPT, COUNT + REST)
    session = asking.lineup.saved.route.session
    for worker in [*(one for one in serving if not one.is_dead), *standbys]:
        leg, standing = asking.lineup.ledger.leg(worker.provider), worker.server._hosts[session].leg.standing
        assert leg.used == standing.served, "both count the same rows"
        assert leg.used.total == worker.rows, "what was decoded is paid, and nothing else"
        assert leg.acked == leg.promised
    assert [failed for failed, _ in asking.changes] == ([stuck.provider] if victim is not None else [])
    await asking.leave()
