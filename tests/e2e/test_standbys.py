"""Standbys of a line: asked, kept ready, and left alone by what others do wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dllm_chat.session.conversation import Conversation
from dllm_chat.session.events import AskOptions, TookOver
from dllm_chat.session.front_desk import LegFailed
from dllm_chat.session.leg import OpenLeg
from dllm_chat.session.line import Line
from dllm_chat.session.lineup import Lineup
from dllm_chat.session.stage_leg import StageFailed, StageLeg
from dllm_chat.session.vocabularies import VocabularyCache
from dllm_protocol.address import encode_address
from dllm_protocol.chat_templates import ChatMessage
from dllm_protocol.messages import REFUSED_REQUEST, ROW_PROMPT, ROW_REPLAYED
from dllm_protocol.pricing import RowCounts
from dllm_protocol.probing.questions import QUESTION_ROWS
from dllm_protocol.session.ledger import DepositUsedUp
from dllm_protocol.vocabulary import NO_TOKEN, TokenPiece, Vocabulary
from local_worker.engine.messages import Hidden
from local_worker.engine.sequence import Sequence
from local_worker.row_work import RowRequest, RowWork
from tests.e2e.stages import Asking, Stages, Worker, stages_of, until, whole_answer
from tests.local_worker.packages.tiny_models import SHAPES, VOCABULARY

PROMPT = [1, *(300 + 7 * n % 200 for n in range(40))]
COUNT = 8
CUTS = ((0, 1), (1, 3), (3, 4))


@pytest.fixture
async def stages(tmp_path: Path) -> AsyncIterator[Stages]:
    async with stages_of(tmp_path, SHAPES["llama"]) as made:
        yield made


@pytest.fixture
def open_legs(monkeypatch: pytest.MonkeyPatch) -> set[StageLeg]:
    """Legs whose channel somebody reads."""
    found: set[StageLeg] = set()
    read, close = StageLeg._read, StageLeg.close

    async def noted(self: StageLeg) -> None:
        found.add(self)
        await read(self)

    async def closed(self: StageLeg, reason: str) -> None:
        found.discard(self)
        await close(self, reason)

    monkeypatch.setattr(StageLeg, "_read", noted)
    monkeypatch.setattr(StageLeg, "close", closed)
    return found


async def line_with_standbys(stages: Stages) -> tuple[list[Worker], list[Worker], Asking]:
    serving = [await stages.start(*cut) for cut in CUTS]
    standbys = [await stages.start(*cut) for cut in CUTS]
    asking = stages.client(1, list(zip(serving, standbys, strict=True)))
    asking.questions = True
    return serving, standbys, asking


async def test_a_stage_that_dies_while_a_standby_is_asked_costs_the_standby_nothing(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, open_legs: set[StageLeg]
) -> None:
    serving, standbys, asking = await line_with_standbys(stages)
    run, died = Sequence.pass_on, False

    async def dies(self: Sequence, first_position: int, hidden: Hidden) -> Hidden:
        nonlocal died
        if self._engine is standbys[1].engine.current() and not died:
            died = True
            await serving[2].die()
        return await run(self, first_position, hidden)

    monkeypatch.setattr(Sequence, "pass_on", dies)
    assert await asking.answer(PROMPT, COUNT) == await whole_answer(stages, PROMPT, COUNT)
    assert died and asking.lineup.saved.failed == (serving[2].provider,)
    assert asking.changes == [(serving[2].provider, standbys[2].provider)], "whoever listens is told"
    await asking.leave()
    assert open_legs == set()


async def test_a_stage_that_refuses_the_question_is_replaced_and_the_answer_comes(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, open_legs: set[StageLeg]
) -> None:
    serving, standbys, asking = await line_with_standbys(stages)
    carry_out, hosts = RowWork._carry_out, serving[1].server._hosts

    async def refuses(self: RowWork, order: RowRequest) -> None:
        if any(host._work is self for host in hosts.values()):
            await self.refuse(order, REFUSED_REQUEST, "what rows?", 0)
            return
        await carry_out(self, order)

    monkeypatch.setattr(RowWork, "_carry_out", refuses)
    assert await asking.answer(PROMPT, COUNT) == await whole_answer(stages, PROMPT, COUNT)
    assert asking.lineup.saved.failed == (serving[1].provider,)
    assert asking.changes == [(serving[1].provider, standbys[1].provider)]
    await asking.leave()
    assert open_legs == set()


async def test_questions_that_the_deposit_does_not_hold_leave_no_channel_open(
    stages: Stages, open_legs: set[StageLeg]
) -> None:
    _, _, asking = await line_with_standbys(stages)
    await asking.lineup.open()
    # Room for the line's own answer, and that of the first standby.
    asking.lineup.ledger.deposit_udllm = 80
    with pytest.raises(DepositUsedUp):
        await asking.lineup.question_standbys(rows=10**6, vocab_size=512, architecture="llama")
    await asking.lineup.close("the test is over")
    assert open_legs == set()


async def test_a_standby_that_was_ready_before_a_top_up_takes_over_with_the_new_deposit(
    stages: Stages, open_legs: set[StageLeg]
) -> None:
    serving, standbys, asking = await line_with_standbys(stages)
    asking.questions = False
    lineup, session = asking.lineup, asking.lineup.saved.route.session
    record, route = stages.chain.sessions[session]
    stages.chain.sessions[session] = (replace(record, deposit_udllm=75), route)
    found = await asking.answer(PROMPT, 3)
    await asyncio.gather(*lineup._spares._opening.values())
    stages.chain.sessions[session] = (record, route)
    decoder = await lineup.reopen(lineup.saved)
    await serving[1].die()
    ids, row = [*PROMPT, *found], None
    while row is None:
        try:
            row = await decoder.decode(ids, kind=ROW_REPLAYED, top_k=8)
        except LegFailed as failure:
            decoder = await lineup.replace(failure)
    assert [*found, row.ids[0]] == await whole_answer(stages, PROMPT, 4)
    assert lineup.providers == (serving[0].provider, standbys[1].provider, serving[2].provider)
    await asking.leave()
    assert open_legs == set()


async def test_screens_hear_who_went_on_while_the_vocabulary_was_fetched(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving, standbys, asking = await line_with_standbys(stages)
    wanted, fetched = Vocabulary(1, (TokenPiece(b"a", 0),), NO_TOKEN, NO_TOKEN, 0, 0), 0
    cache = VocabularyCache(stages.folder / "vocabularies")
    chain = SimpleNamespace(**vars(asking._chain), vocabularies=cache)
    conversation = Conversation(cast(Any, chain), AskOptions(), "m", {})
    conversation._use(asking.lineup.saved)
    decoder = await conversation._opened()

    async def one_dies(self: Line, expected_hash: bytes) -> Vocabulary:
        nonlocal fetched
        fetched += 1
        if fetched == 1:
            await serving[0].die()
            raise StageFailed(serving[0].provider, "its channel failed")
        return wanted

    monkeypatch.setattr(Line, "vocabulary", one_dies)
    market = SimpleNamespace(manifest=SimpleNamespace(vocabulary_hash=bytes(32)))
    found, after = await conversation._vocabulary(decoder, cast(Any, market))
    assert found == wanted and after is not decoder
    (event,) = conversation._drain()
    assert isinstance(event, TookOver) and event.reason == "its channel failed"
    assert event.failed.address == encode_address("localprov", serving[0].provider)
    assert event.successor.address == encode_address("localprov", standbys[0].provider)
    assert standbys[0].provider in conversation.served_ids
    await conversation._serving.close("the test is over")


async def test_a_question_before_a_long_answer_asks_every_standby_and_pays_it(stages: Stages) -> None:
    """As a person's question has it done: a standby is paid for what it answered, and for nothing else."""
    _, standbys, asking = await line_with_standbys(stages)
    conversation = Conversation(cast(Any, asking._chain), AskOptions(max_tokens=1000), "m", {})
    conversation._use(asking.lineup.saved)
    decoder = await conversation._opened()
    market = SimpleNamespace(manifest=SimpleNamespace(architecture="llama"))
    words = [ChatMessage("user", "Why?")]
    decoder = await conversation._with_questions(decoder, words, cast(Any, market), VOCABULARY)
    ledger, asked = conversation._serving.ledger, RowCounts(0, QUESTION_ROWS, 0, 0)
    assert [ledger.leg(one.provider).used for one in standbys] == [asked] * len(standbys)
    row = await decoder.decode(PROMPT, kind=ROW_PROMPT, top_k=8)
    assert row.ids[:1] == await whole_answer(stages, PROMPT, 1)
    assert decoder.held == PROMPT
    again = await conversation._with_questions(decoder, words, cast(Any, market), VOCABULARY)
    assert again is decoder, "nobody is asked over rows that are held"
    assert [one.rows for one in standbys] == [QUESTION_ROWS] * len(standbys)
    await conversation._serving.close("the test is over")


async def test_a_standby_that_is_kept_ready_and_not_asked_earns_nothing(stages: Stages) -> None:
    serving, standbys, asking = await line_with_standbys(stages)
    asking.questions = False
    assert await asking.answer(PROMPT, COUNT) == await whole_answer(stages, PROMPT, COUNT)
    session = asking.lineup.saved.route.session
    await until(lambda: all(session in one.server._hosts for one in standbys))
    for standby in standbys:
        assert standby.rows == asking.lineup.ledger.leg(standby.provider).most.total == 0
    voucher = asking.lineup.ledger.state.last_voucher
    assert voucher is not None
    assert [leg.provider for leg in voucher.voucher.legs] == [one.provider for one in serving]
    await asking.leave()


async def test_nothing_runs_on_when_an_answer_is_over(stages: Stages) -> None:
    """Whoever served, failed, stood by or was asked questions: no task of theirs or ours outlives the answer."""
    serving, standbys, asking = await line_with_standbys(stages)
    before, found = asyncio.all_tasks(), 0
    async for _ in asking.tokens(PROMPT, COUNT):
        found += 1
        if found == 3:
            await serving[1].die()
    assert asking.changes == [(serving[1].provider, standbys[1].provider)]
    await asking.leave()
    await until(lambda: not asyncio.all_tasks() - before)


@pytest.mark.parametrize("hangs", ["dial", "link"])
async def test_whoever_walks_away_while_the_line_is_made_leaves_no_channel_open(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, hangs: str
) -> None:
    serving, _, asking = await line_with_standbys(stages)
    conversation = Conversation(cast(Any, asking._chain), AskOptions(), "m", {})
    conversation._use(asking.lineup.saved)
    session, dial, before = asking.lineup.saved.route.session, Lineup._dial_stage, asyncio.all_tasks()
    there, reached = serving[:1] if hangs == "dial" else serving, list[bytes]()

    async def dialled(self: Lineup, provider: bytes) -> StageLeg:
        if provider not in [one.provider for one in there]:
            await asyncio.Event().wait()
        leg = await dial(self, provider)
        reached.append(provider)
        return leg

    async def never(self: Line, forms: object = ()) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Lineup, "_dial_stage", dialled)
    monkeypatch.setattr(Line, "link", never)
    opening = asyncio.create_task(conversation._opened())
    await until(lambda: len(reached) == len(there))
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await until(lambda: not any(session in one.server._hosts for one in serving))
    await until(lambda: not asyncio.all_tasks() - before)


@pytest.mark.parametrize("channel", ["stands", "ended", "silent"])
async def test_a_whole_model_s_standby_is_ready_too(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, channel: str
) -> None:
    """It is dialled before it is needed, and once more where its channel is of no use by then."""
    one, other = [await stages.start(0, 4) for _ in range(2)]
    dial, dialled = Lineup._dial_whole, list[bytes]()

    async def noted(self: Lineup, provider: bytes) -> OpenLeg:
        dialled.append(provider)
        return await dial(self, provider)

    monkeypatch.setattr(Lineup, "_dial_whole", noted)
    asking, found = stages.client(1, [(one, other)]), list[int]()
    session, before = asking.lineup.saved.route.session, asyncio.all_tasks()
    async for token in asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) == 3:
            await until(lambda: session in other.server._hosts)
            assert other.rows == asking.lineup.ledger.leg(other.provider).most.total == 0
            if channel == "ended":
                other.hang_up()
                await until(lambda: session not in other.server._hosts)
            elif channel == "silent":
                other.fall_silent()
            await one.die()
    assert found == await whole_answer(stages, PROMPT, COUNT)
    assert asking.changes == [(one.provider, other.provider)]
    assert dialled == [one.provider, other.provider, *([other.provider] if channel != "stands" else [])]
    await asking.leave()
    await until(lambda: not asyncio.all_tasks() - before)


async def test_a_stage_s_standby_whose_channel_fell_silent_is_dialled_anew(stages: Stages) -> None:
    serving, standbys, asking = await line_with_standbys(stages)
    asking.questions = False
    session, found = asking.lineup.saved.route.session, list[int]()
    async for token in asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) == 3:
            await until(lambda: all(session in one.server._hosts for one in standbys))
            standbys[1].fall_silent()
            await serving[1].die()
    assert found == await whole_answer(stages, PROMPT, COUNT)
    assert asking.changes == [(serving[1].provider, standbys[1].provider)]
    await asking.leave()
