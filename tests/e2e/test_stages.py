"""Several workers answer together: exactly as the whole model, whoever fails in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dllm_chat.session.line import Line
from dllm_protocol.probing.questions import QUESTION_ROWS
from local_worker.engine.messages import Hidden
from local_worker.engine.sequence import Sequence
from tests.e2e.stages import Stages, stages_of, whole_answer
from tests.local_worker.packages.tiny_models import SHAPES

PROMPT = [1, *(300 + 7 * n % 200 for n in range(300))]
"""Longer than a slice."""
COUNT = 24


@pytest.fixture
async def stages(tmp_path: Path) -> AsyncIterator[Stages]:
    async with stages_of(tmp_path, SHAPES["llama"]) as made:
        yield made


async def test_three_stages_say_what_the_whole_model_says_and_all_are_paid(stages: Stages) -> None:
    first, middle, last = [await stages.start(*cut) for cut in ((0, 1), (1, 3), (3, 4))]
    asking = stages.client(1, [(first, None), (middle, None), (last, None)])
    assert await asking.answer(PROMPT, COUNT) == await whole_answer(stages, PROMPT, COUNT)
    assert asking.served == [first.provider, middle.provider, last.provider]
    line = asking.lineup.decoder
    assert isinstance(line, Line) and len(line._ear.outputs) < 3, "what was read of an answer is forgotten"
    rows = len(PROMPT) + COUNT - 1
    for worker in stages.workers:
        leg = asking.lineup.ledger.leg(worker.provider)
        assert leg.used.total == rows and leg.used.replayed == 0
        assert leg.acked == leg.promised, "the turn's last voucher is acknowledged by each stage"
        assert worker.rows == rows
    await asking.leave()


@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_a_stage_that_dies_in_mid_answer_is_replaced_and_not_a_token_changes(
    stages: Stages, victim: int
) -> None:
    cuts = ((0, 1), (1, 3), (3, 4))
    serving = [await stages.start(*cut) for cut in cuts]
    standby = await stages.start(*cuts[victim])
    route = [(one, standby if index == victim else None) for index, one in enumerate(serving)]
    asking = stages.client(1, route)
    found: list[int] = []
    async for token in asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) == 10:
            await serving[victim].die()
    assert found == await whole_answer(stages, PROMPT, COUNT)
    assert asking.changes == [(serving[victim].provider, standby.provider)]
    # Only the standby decoded the rows once more; the others went on.
    rows = len(PROMPT) + COUNT - 1
    for index, worker in enumerate(serving):
        if index != victim:
            assert rows <= worker.rows <= rows + 2
    leg = asking.lineup.ledger.leg(standby.provider)
    assert len(PROMPT) + 8 <= leg.used.replayed <= len(PROMPT) + 10
    await asking.leave()


async def test_every_stage_dies_one_after_the_other(stages: Stages) -> None:
    cuts = ((0, 1), (1, 3), (3, 4))
    serving = [await stages.start(*cut) for cut in cuts]
    standbys = [await stages.start(*cut) for cut in cuts]
    asking = stages.client(1, list(zip(serving, standbys, strict=True)))
    found: list[int] = []
    async for token in asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) in (5, 10, 15):
            await serving[len(found) // 5 - 1].die()
    assert found == await whole_answer(stages, PROMPT, COUNT)
    assert [failed for failed, _ in asking.changes] == [one.provider for one in serving]
    await asking.leave()


async def test_two_stages_die_at_once(stages: Stages) -> None:
    cuts = ((0, 1), (1, 3), (3, 4))
    serving = [await stages.start(*cut) for cut in cuts]
    standbys = [await stages.start(*cut) for cut in cuts]
    asking = stages.client(1, list(zip(serving, standbys, strict=True)))
    found: list[int] = []
    async for token in asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) == 7:
            await serving[0].die()
            await serving[1].die()
    assert found == await whole_answer(stages, PROMPT, COUNT)
    assert {failed for failed, _ in asking.changes} == {serving[0].provider, serving[1].provider}
    await asking.leave()


async def test_a_stage_before_that_forgot_what_it_sent_computes_it_again(stages: Stages) -> None:
    cuts = ((0, 1), (1, 3), (3, 4))
    serving = [await stages.start(*cut, kept_rows_bytes=1000) for cut in cuts]
    standby = await stages.start(3, 4)
    asking = stages.client(1, [(serving[0], None), (serving[1], None), (serving[2], standby)])
    found: list[int] = []
    async for token in asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) == 10:
            await serving[2].die()
    assert found == await whole_answer(stages, PROMPT, COUNT)
    assert asking.lineup.ledger.leg(serving[0].provider).used.replayed > len(PROMPT)
    await asking.leave()


async def test_the_next_answer_finds_its_rows_at_every_stage(stages: Stages) -> None:
    workers = [await stages.start(*cut) for cut in ((0, 1), (1, 3), (3, 4))]
    asking = stages.client(1, [(one, None) for one in workers])
    found = await asking.answer(PROMPT, 5)
    await asking.leave()
    before = [worker.rows for worker in workers]
    longer = [*PROMPT, *found, 7, 8, 9]
    again = await asking.answer(longer, 5)
    assert again == await whole_answer(stages, longer, 5)
    # The last token of the first answer was never decoded; all rows before it are still there.
    assert [worker.rows - rows for worker, rows in zip(workers, before, strict=True)] == [1 + 3 + 4] * 3
    await asking.leave()


async def test_sessions_side_by_side_do_not_disturb_each_other(stages: Stages) -> None:
    workers = [await stages.start(*cut) for cut in ((0, 2), (2, 4))]
    prompts = [PROMPT[: 40 + 10 * n] for n in range(3)]
    askings = [stages.client(seed, [(one, None) for one in workers]) for seed in range(1, 4)]
    found = await asyncio.gather(
        *(asking.answer(prompt, 12) for asking, prompt in zip(askings, prompts, strict=True))
    )
    for prompt, answer in zip(prompts, found, strict=True):
        assert answer == await whole_answer(stages, prompt, 12)
    for asking in askings:
        await asking.leave()


async def test_standbys_that_answer_questions_are_paid_for_them_and_nothing_else(stages: Stages) -> None:
    cuts = ((0, 1), (1, 3), (3, 4))
    serving = [await stages.start(*cut) for cut in cuts]
    standbys = [await stages.start(*cut) for cut in cuts]
    asking = stages.client(1, list(zip(serving, standbys, strict=True)))
    asking.questions = True
    assert await asking.answer(PROMPT, COUNT) == await whole_answer(stages, PROMPT, COUNT)
    for standby in standbys:
        leg = asking.lineup.ledger.leg(standby.provider)
        assert (leg.used.kept, leg.used.total, standby.rows) == (QUESTION_ROWS,) * 2 + (QUESTION_ROWS,)
    # The others answer the first question, and those with the standbys of other stages in the line.
    rows = len(PROMPT) + COUNT - 1
    assert [worker.rows - rows for worker in serving] == [3 * QUESTION_ROWS] * 3
    assert asking.lineup.saved.failed == () and asking.served == [one.provider for one in serving]
    await asking.leave()


async def test_a_standby_that_answers_otherwise_is_left_out(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = ((0, 1), (1, 3), (3, 4))
    serving = [await stages.start(*cut) for cut in cuts]
    standbys = [await stages.start(*cut) for cut in cuts]
    asking = stages.client(1, list(zip(serving, standbys, strict=True)))
    asking.questions = True
    idle = standbys[1]
    run = Sequence.pass_on

    async def nothing(self: Sequence, first_position: int, hidden: Hidden) -> Hidden:
        computed = await run(self, first_position, hidden)
        return hidden if self._engine is idle.engine.current() else computed

    monkeypatch.setattr(Sequence, "pass_on", nothing)
    assert await asking.answer(PROMPT, COUNT) == await whole_answer(stages, PROMPT, COUNT)
    assert asking.lineup.saved.failed == (idle.provider,)
    await asking.leave()
