"""Rows go from engine to engine, and the last stage tells the first what is likeliest: never another letter for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from dllm_chat.session.decoder import RowLogits
from dllm_protocol.messages import ROW_PROMPT
from local_worker.engine.client import Engine
from local_worker.engine.messages import LaneAnswer, Ticket
from local_worker.engine.sequence import Sequence
from local_worker.engine_host import EngineHost, EngineOptions
from tests.e2e.stages import CONTEXT_ROWS, Asking, Stages, Worker, stages_of, until, whole_answer
from tests.local_worker.packages.tiny_models import SHAPES

PROMPT = [1, *(300 + 7 * n % 200 for n in range(20))]
COUNT = 40
CUTS = ((0, 1), (1, 3), (3, 4))


@pytest.fixture
async def stages(tmp_path: Path) -> AsyncIterator[Stages]:
    async with stages_of(tmp_path, SHAPES["llama"]) as made:
        yield made


class Seen:
    """What engines answered to rows that went over lanes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[tuple[Ticket, int, LaneAnswer]] = []
        real = Sequence.over_lanes

        async def noted(
            sequence: Sequence, first: int, ticket: Ticket, *, token: int = -1, top_k: int = 1
        ) -> LaneAnswer:
            answer = await real(sequence, first, ticket, token=token, top_k=top_k)
            self.answers.append((ticket, token, answer))
            return answer

        monkeypatch.setattr(Sequence, "over_lanes", noted)

    @property
    def sent(self) -> int:
        """Rows that an engine itself sent on."""
        return sum(answer.sent for _, _, answer in self.answers)

    @property
    def numbers(self) -> list[int]:
        """Numbers of the requests that the first stage carried out over lanes."""
        return [ticket.request for ticket, token, _ in self.answers if token >= 0]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(monkeypatch)


async def three(stages: Stages) -> list[Worker]:
    return [await stages.start(*cut) for cut in CUTS]


async def test_most_rows_of_an_answer_pass_no_worker_on_their_way(stages: Stages, seen: Seen) -> None:
    workers = await three(stages)
    asking = stages.client(1, [(one, None) for one in workers])
    assert await asking.answer(PROMPT, COUNT) == await whole_answer(stages, PROMPT, COUNT)
    # A lane is made when the first row is asked for; until it stands, rows take the link.
    assert seen.sent > COUNT, "two stages of three hand rows on"
    rows = len(PROMPT) + COUNT - 1
    for worker in workers:
        leg = asking.lineup.ledger.leg(worker.provider)
        assert leg.used.total == worker.rows == rows, (
            "nothing that was decoded ahead is counted twice, or lost"
        )
        assert leg.acked == leg.promised
    await asking.leave()


async def chosen(asking: Asking, ranks: list[int]) -> tuple[list[int], list[RowLogits]]:
    """An answer whose n-th token is the ``ranks[n]``-th likeliest; what was said of each row."""
    decoder = await asking.lineup.open()
    row = await decoder.decode(PROMPT, kind=ROW_PROMPT, top_k=8)
    tokens, rows = [], [row]
    for rank in ranks:
        tokens.append(row.ids[rank])
        row = await decoder.decode_next(tokens[-1], 8)
        rows.append(row)
    await decoder.seal_turn()
    return tokens, rows


async def whole_rows(stages: Stages, tokens: list[int]) -> list[tuple[list[int], list[float]]]:
    """The same tokens' rows of the model that is not cut."""
    engine = EngineHost(EngineOptions(stages.model, stages.folder / "whole.log", CONTEXT_ROWS, 1, 1))
    await engine.start()
    try:
        sequence = engine.current().open_sequence()
        found = [(await sequence.decode(0, PROMPT, top_k=8, outputs="last"))[0]]
        for at, token in enumerate(tokens):
            found += await sequence.decode(len(PROMPT) + at, [token], top_k=8, outputs="last")
        return [(row.ids.tolist(), row.logits.tolist()) for row in found]
    finally:
        await engine.close()


async def test_a_client_that_chooses_other_tokens_gets_their_rows(stages: Stages, seen: Seen) -> None:
    """Behind a run of likeliest tokens stages are one row ahead; what they guessed leaves no trace."""
    workers = await three(stages)
    asking = stages.client(1, [(one, None) for one in workers])
    ranks = [0] * 12 + [1] + [0] * 12 + [2, 1] + [0] * 6 + [3] + [0] * 4
    tokens, rows = await chosen(asking, ranks)
    expected = await whole_rows(stages, tokens)
    assert [(row.ids, row.logits) for row in rows] == expected
    gaps = [later - earlier for earlier, later in zip(seen.numbers, seen.numbers[1:], strict=False)]
    assert 1 in gaps and 2 in gaps, "a number is left out where another token than the likeliest was chosen"
    for worker in workers:
        assert worker.rows == len(PROMPT) + len(ranks)
    await asking.leave()


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_lane_that_breaks_in_mid_answer_costs_neither_a_token_nor_a_stage(
    stages: Stages, seen: Seen, at: int
) -> None:
    workers = await three(stages)
    asking = stages.client(1, [(one, None) for one in workers])
    found: list[int] = []
    async for token in asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) == COUNT // 2:
            lanes = next(iter(workers[at].server._hosts.values())).place.lanes
            await until(lambda: lanes._out is not None and lanes._out.is_up)  # noqa: B023
            out = lanes._out
            assert out is not None
            # Out of the service's sight: the engine hangs up, and the other side finds that out.
            out._give_up(out)
            out.fall("cut by the test")
            before = seen.sent
    assert found == await whole_answer(stages, PROMPT, COUNT)
    assert asking.changes == []
    assert at != 1 or seen.sent > before, (
        "the first stage's lane goes on; behind one that is cut rows take the link"
    )
    await asking.leave()


async def test_several_answers_at_once_keep_their_rows_apart(stages: Stages, seen: Seen) -> None:
    workers = await three(stages)
    askings = [stages.client(seed, [(one, None) for one in workers]) for seed in (1, 2, 3)]
    prompts = [[1, 300 + seed, *PROMPT] for seed in range(3)]
    answers = await asyncio.gather(
        *(asking.answer(prompt, COUNT) for asking, prompt in zip(askings, prompts, strict=True))
    )
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer == await whole_answer(stages, prompt, COUNT)
    assert seen.sent > COUNT
    for asking in askings:
        await asking.leave()


async def test_lanes_end_with_their_session(stages: Stages) -> None:
    workers = await three(stages)
    asking = stages.client(1, [(one, None) for one in workers])
    await asking.answer(PROMPT, 12)
    engines = [cast(Engine, worker.engine.current()) for worker in workers]
    assert all(engine._lanes for engine in engines), "a stage has a lane out, and one in"
    await asking.leave()
    await until(lambda: not any(engine._lanes for engine in engines))
