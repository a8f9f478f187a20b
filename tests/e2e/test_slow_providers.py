"""A provider of a whole model that becomes slow: the rest of the answer comes from its standby, if there is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dllm_chat.session import pace
from dllm_chat.session.leg import LegSlow, OpenLeg
from dllm_chat.session.stage_leg import StageSlow
from dllm_protocol.messages import ROW_REPLAYED
from dllm_protocol.session.ledger import WINDOW_KEPT_ROWS
from local_worker.engine.sequence import Sequence
from tests.e2e.stages import Asking, Stages, Worker, stages_of, until, whole_answer
from tests.local_worker.packages.tiny_models import SHAPES

PROMPT = [1, *(300 + 7 * n % 200 for n in range(14))]
COUNT = 60
"""Behind the prompt windows begin at rows 16, 32, 48 and 64."""
SLOW_FROM = 20
"""Tokens: by then its best time is known."""
SLOWED_S = 0.4


@pytest.fixture
async def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stages]:
    monkeypatch.setattr(pace, "SLOW_S", SLOWED_S / 2)
    monkeypatch.setattr(pace, "SLOW_FACTOR", 1.5)  # a machine that is busy takes its time at first, too
    async with stages_of(tmp_path, SHAPES["llama"]) as made:
        yield made


@contextmanager
def slowed(worker: Worker) -> Iterator[None]:
    """Its engine takes its time for every row."""
    run: Any = Sequence.decode

    async def slowly(self: Sequence, *given: Any, **named: Any) -> Any:
        if self._engine is worker.engine.current():
            await asyncio.sleep(SLOWED_S)
        return await run(self, *given, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Sequence, "decode", slowly)
        yield


async def answer(asking: Asking, slow: Worker, standby: Worker | None = None) -> list[int]:
    """An answer in which a worker becomes slow; a ``standby`` dies as soon as it has taken over."""
    tokens, found = asking.tokens(PROMPT, COUNT), []
    async for token in tokens:
        found.append(token)
        if len(found) == SLOW_FROM:
            break
    with slowed(slow):
        async for token in tokens:
            found.append(token)
            if standby is not None and asking.changes and not standby.is_dead:
                await standby.die()
    return found


async def test_it_is_routed_around_at_the_next_window_and_not_held_for_dead(stages: Stages) -> None:
    one, other = [await stages.start(0, 4) for _ in range(2)]
    asking, before = stages.client(1, [(one, other)]), asyncio.all_tasks()
    assert await answer(asking, one) == await whole_answer(stages, PROMPT, COUNT)
    assert asking.changes == [(one.provider, other.provider)]
    assert asking.lineup.saved.failed == (), "nobody is rated for being slow"
    rows = asking.lineup.ledger.leg(one.provider).used.total
    assert rows % WINDOW_KEPT_ROWS == 0, "it is left where a window ends"
    assert len(PROMPT) + SLOW_FROM < rows < len(PROMPT) + COUNT - 1
    assert asking.lineup.ledger.leg(other.provider).used.replayed == rows, "the standby began with all of it"
    await asking.leave()
    await until(lambda: not asyncio.all_tasks() - before)


@pytest.mark.parametrize("standby", ["none", "dead"])
async def test_it_goes_on_where_nobody_can_stand_in(stages: Stages, standby: str) -> None:
    one = await stages.start(0, 4)
    other = await stages.start(0, 4) if standby == "dead" else None
    if other is not None:
        await other.die()
    asking = stages.client(1, [(one, other)])
    assert await answer(asking, one) == await whole_answer(stages, PROMPT, COUNT)
    assert asking.changes == []
    decoder = asking.lineup.decoder
    assert isinstance(decoder, OpenLeg)
    assert decoder.may_be_slow, "it was found slow"
    assert asking.lineup.saved.failed == ((other.provider,) if other is not None else ())
    assert asking.lineup.ledger.leg(one.provider).used.total == len(PROMPT) + COUNT - 1, (
        "no row was asked twice"
    )
    await asking.leave()


async def test_a_slow_one_takes_over_again_where_its_standby_dies(stages: Stages) -> None:
    one, other = [await stages.start(0, 4) for _ in range(2)]
    asking = stages.client(1, [(one, other)])
    assert await answer(asking, one, standby=other) == await whole_answer(stages, PROMPT, COUNT)
    assert asking.changes == [(one.provider, other.provider), (other.provider, one.provider)]
    assert asking.lineup.saved.failed == (other.provider,)
    await asking.leave()


@pytest.mark.parametrize("cuts", [((0, 4),), ((0, 2), (2, 4))], ids=["whole", "stages"])
async def test_a_slow_one_without_a_standby_goes_on_behind_a_top_up(
    stages: Stages, cuts: tuple[tuple[int, int], ...]
) -> None:
    serving = [await stages.start(*cut) for cut in cuts]
    asking = stages.client(1, [(one, None) for one in serving])
    lineup, found = asking.lineup, await asking.answer(PROMPT, 5)
    first = serving[0].provider
    slow = StageSlow(first, "it is slow") if len(cuts) > 1 else LegSlow("it is slow")
    decoder = await lineup.replace(slow)
    assert asking.changes == []
    decoder = await lineup.reopen(lineup.saved)
    row = await decoder.decode([*PROMPT, *found], kind=ROW_REPLAYED, top_k=8)
    assert [*found, row.ids[0]] == await whole_answer(stages, PROMPT, 6)
    await asking.leave()
