"""Stages that send garbage, fall silent, or answer something else: named, replaced, and nobody else notices."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from dllm_chat.dispatch.market import NoProvider
from dllm_chat.session import line, line_ear, pace, patience
from dllm_chat.session.front_desk import LegFailed
from dllm_chat.session.line import Line
from dllm_chat.session.stage_leg import StageFailed
from dllm_protocol.address import encode_address
from dllm_protocol.messages import ROW_PROMPT
from dllm_protocol.session.orders import DecodeRows, TakeRows
from dllm_protocol.stage_link import StageGoodbye, StageLink
from light_node.channel.errors import ChannelLost
from light_node.channel.link import Link
from local_worker.engine.messages import Hidden, RowOutput
from local_worker.engine.sequence import Sequence
from local_worker.errors import NextStageFailed
from local_worker.next_stage import NextStage
from local_worker.place_in_line import PlaceInLine
from local_worker.row_work import RowWork
from tests.e2e.stages import CONTEXT_ROWS, LIMITS, Asking, Stages, Worker, stages_of, until, whole_answer
from tests.local_worker.packages.tiny_models import SHAPES

PROMPT = [1, *(300 + 7 * n % 200 for n in range(40))]
COUNT = 16
CUTS = ((0, 1), (1, 3), (3, 4))
SLOWED_S = 0.3
"""Many times what a row takes at any stage, on a machine that is busy with other things as well."""


@dataclass
class Scene:
    """A session whose first stage has a standby, and a bystander's session over the same workers."""

    stages: Stages
    serving: list[Worker]
    standbys: list[Worker]
    asking: Asking
    bystander: Asking


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with stages_of(tmp_path, SHAPES["llama"]) as stages:
        serving = [await stages.start(*cut) for cut in CUTS]
        standbys = [await stages.start(*cut) for cut in CUTS]
        route = list(zip(serving, standbys, strict=True))
        asking, bystander = stages.client(1, route), stages.client(2, [(one, None) for one in serving])
        yield Scene(stages, serving, standbys, asking, bystander)
        await asking.lineup.close("the test is over")
        await bystander.lineup.close("the test is over")


@pytest.fixture
def links_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lanes: what these tests tamper with is how services hand rows on. Lanes are tampered with in `test_lanes`."""
    monkeypatch.setattr(PlaceInLine, "want_lane", lambda _: None)


def hands_on(worker: Worker, asking: Asking, link: NextStage) -> bool:
    """Whether a link is a worker's, in the session of this client."""
    hosts = worker.server._hosts.items()
    session = asking.lineup.saved.route.session
    return any(key == session and host.place._next is link for key, host in hosts)


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a stage that does nothing for failed sooner."""
    for room in (line, patience):
        monkeypatch.setattr(room, "ANSWER_TIMEOUT_S", 3.0)
    monkeypatch.setattr(patience, "ROW_TIMEOUT_S", 0.0)
    monkeypatch.setattr(line_ear, "BEAT_S", 0.2)


def signal_engine(worker: Worker, number: signal.Signals) -> None:
    os.kill(worker.engine.current()._process.pid, number)


Spoil = Callable[[int, int, int, int, bytes], tuple[int, int, int, int, bytes]]


def not_numbers(
    request: int, first: int, rows: int, form: int, data: bytes
) -> tuple[int, int, int, int, bytes]:
    return request, first, rows, form, np.full(len(data) // 4, np.nan, "<f4").tobytes()


def endless(request: int, first: int, rows: int, form: int, data: bytes) -> tuple[int, int, int, int, bytes]:
    return request, first, rows, form, np.full(len(data) // 4, np.inf, "<f4").tobytes()


def narrower(request: int, first: int, rows: int, form: int, data: bytes) -> tuple[int, int, int, int, bytes]:
    return request, first, rows, form, data[: len(data) // 2]


def elsewhere(
    request: int, first: int, rows: int, form: int, data: bytes
) -> tuple[int, int, int, int, bytes]:
    return request, first + 1, rows, form, data


@pytest.mark.usefixtures("links_only")
@pytest.mark.parametrize("spoil", [not_numbers, endless, narrower, elsewhere])
async def test_a_stage_that_hands_on_garbage_is_replaced(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, spoil: Spoil
) -> None:
    send = NextStage.send
    liar = scene.serving[0]

    async def spoiled(self: NextStage, request: int, first: int, rows: int, form: int, data: bytes) -> None:
        if hands_on(liar, scene.asking, self):
            request, first, rows, form, data = spoil(request, first, rows, form, data)
        await send(self, request, first, rows, form, data)

    undisturbed = asyncio.create_task(scene.bystander.answer(PROMPT, COUNT))
    found: list[int] = []
    async for token in scene.asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) == 5:
            monkeypatch.setattr(NextStage, "send", spoiled)
    wanted = await whole_answer(scene.stages, PROMPT, COUNT)
    assert found == wanted
    assert scene.asking.changes == [(liar.provider, scene.standbys[0].provider)]
    assert await undisturbed == wanted and not scene.bystander.changes


@pytest.mark.usefixtures("links_only")
async def test_rows_for_another_request_are_not_taken_and_whoever_sends_them_is_found(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage behind waits in vain, is replaced, and its successor waits as well: then the one before is to blame."""
    hurry(monkeypatch)
    send, liar = NextStage.send, scene.serving[0]

    async def misnumbered(
        self: NextStage, request: int, first: int, rows: int, form: int, data: bytes
    ) -> None:
        await send(self, 1 if hands_on(liar, scene.asking, self) else request, first, rows, form, data)

    found: list[int] = []
    async for token in scene.asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) == 5:
            monkeypatch.setattr(NextStage, "send", misnumbered)
    assert found == await whole_answer(scene.stages, PROMPT, COUNT)
    assert [failed for failed, _ in scene.asking.changes] == [scene.serving[1].provider, liar.provider]


async def test_a_stage_that_gives_no_sign_of_life_is_replaced(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_ear, "BEAT_S", 0.1)
    monkeypatch.setattr(line_ear, "SILENT_S", 2.0)
    send = Link.send
    mute = scene.serving[1]

    async def swallowed(self: Link, frame: bytes) -> None:
        hosts = mute.server._hosts.values()
        if not any(host._link is self for host in hosts):
            await send(self, frame)

    found: list[int] = []
    async for token in scene.asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) == 5:
            # Its engine stands still as well: nothing of it goes on to the last stage.
            monkeypatch.setattr(Link, "send", swallowed)
            signal_engine(mute, signal.SIGSTOP)
    signal_engine(mute, signal.SIGCONT)
    assert found == await whole_answer(scene.stages, PROMPT, COUNT)
    assert scene.asking.changes == [(mute.provider, scene.standbys[1].provider)]


async def test_a_stage_that_lives_and_does_nothing_is_replaced(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    lazy = scene.serving[2]
    found: list[int] = []
    async for token in scene.asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) == 5:
            signal_engine(lazy, signal.SIGSTOP)
    signal_engine(lazy, signal.SIGCONT)
    assert found == await whole_answer(scene.stages, PROMPT, COUNT)
    assert scene.asking.changes == [(lazy.provider, scene.standbys[2].provider)]


async def test_two_stages_that_lose_each_other_link_up_once_more(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that breaks between two that live costs no replay and nobody's place."""
    found: list[int] = []
    async for token in scene.asking.tokens(PROMPT, COUNT):
        found.append(token)
        if len(found) == 5:
            (host,) = scene.serving[0].server._hosts.values()
            assert host.place._next is not None
            host.place._next._link.abort()
    assert found == await whole_answer(scene.stages, PROMPT, COUNT)
    assert not scene.asking.changes
    assert scene.asking.lineup.ledger.leg(scene.serving[1].provider).used.replayed == 0


@pytest.mark.usefixtures("links_only")
async def test_rows_that_a_stage_computed_in_vain_are_paid_and_none_are_computed_for_nobody(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a client whose own provider stands behind has others compute for nothing, as often as it likes."""
    first, enter, computed = scene.serving[0], Sequence.enter, 0
    await scene.asking.answer(PROMPT, 2)
    (host,) = first.server._hosts.values()

    async def hung_up() -> None:
        assert host.place._next is not None
        host.place._next._link.abort()
        await until(lambda: host.place._next is None)

    async def in_vain(self: Sequence, first_position: int, ids: list[int]) -> Hidden:
        nonlocal computed
        rows = await enter(self, first_position, ids)
        computed += len(ids)
        await hung_up()
        return rows

    line = scene.asking.lineup.decoder
    assert isinstance(line, Line)
    before = host.leg.standing.served.total
    monkeypatch.setattr(Sequence, "enter", in_vain)
    with pytest.raises(StageFailed):
        await line.decode_next(5, 4)
    with pytest.raises(StageFailed):
        await line.decode_next(5, 4)
    await until(lambda: not line.legs[0].unanswered)
    assert computed == 1, "with nobody behind nothing is computed"
    assert host.leg.standing.served.total == before + 1
    assert scene.asking.lineup.ledger.leg(first.provider).used.total == before + 1


async def test_without_a_standby_the_end_is_named_and_nothing_hangs(scene: Scene) -> None:
    found: list[int] = []
    dead, lineup = scene.serving[1], scene.bystander.lineup
    with pytest.raises(LegFailed, match=r"nobody is left who answers for layers \[1, 3\)") as caught:
        async for token in scene.bystander.tokens(PROMPT, COUNT):
            found.append(token)
            if len(found) == 6:
                hosts = {one.number: one.server._hosts[lineup.saved.route.session] for one in scene.serving}
                await dead.die()
    assert encode_address("localprov", dead.provider) in caught.value.message
    assert found == (await whole_answer(scene.stages, PROMPT, COUNT))[:6]
    assert lineup.saved.failed == (dead.provider,)
    # What was answered is paid: by the row where a stage lives, and never more than the dead one acknowledged.
    for one in scene.serving:
        leg = lineup.ledger.leg(one.provider)
        if one is dead:
            assert leg.promised == leg.acked and leg.used.total == len(PROMPT) + 5
        else:
            assert leg.used == hosts[one.number].leg.standing.served
    # Whoever asks again while it is away hears who is missing; nothing is asked for, and no channel stays open.
    before = lineup.ledger.state.n
    await scene.bystander.leave()
    with pytest.raises(NoProvider, match=r"layers \[1, 3\); localprov1"):
        await scene.bystander.answer(PROMPT, 1)
    assert scene.bystander.lineup.ledger.state.n == before
    await until(lambda: not any(hosts[one.number] in one.server._hosts.values() for one in scene.serving))
    session = lineup.saved.route.session
    await until(lambda: not any(session in one.server._hosts for one in scene.serving if one is not dead))


async def test_more_rows_than_a_stage_holds_are_refused_by_name_and_nobody_else_notices(
    scene: Scene,
) -> None:
    await scene.asking.answer(PROMPT, 2)
    await scene.bystander.answer(PROMPT, 2)
    line = scene.asking.lineup.decoder
    assert isinstance(line, Line)
    with pytest.raises(StageFailed, match=f"this model takes {CONTEXT_ROWS}"):
        await line.decode([1] * (CONTEXT_ROWS + 1), kind=ROW_PROMPT, top_k=4)
    other = scene.bystander.lineup.decoder
    assert other is not None and (await other.decode_next(5, 4)).ids


@pytest.mark.parametrize("answer", ["twice", "endless words"])
async def test_a_stage_that_answers_its_link_with_nonsense_is_named_and_not_the_one_before(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    hostile, take = scene.serving[1], PlaceInLine.take

    async def nonsense(self: PlaceInLine, provider: bytes, link: Link, stage: StageLink) -> None:
        if self._terms.entry.provider == hostile.provider:
            seal = stage.seal
            told = StageGoodbye("\N{MUSICAL SYMBOL G CLEF}" * 75)
            reply = (lambda *one: seal(*one, *one)) if answer == "twice" else (lambda *one: seal(told))
            monkeypatch.setattr(stage, "seal", reply)
        await take(self, provider, link, stage)

    monkeypatch.setattr(PlaceInLine, "take", nonsense)
    assert await scene.asking.answer(PROMPT, 3) == await whole_answer(scene.stages, PROMPT, 3)
    assert scene.asking.lineup.saved.failed == (hostile.provider,)


async def test_a_stranger_cannot_hand_rows_on(scene: Scene) -> None:
    """Only the provider that the client put before a stage may dial it, and it has to prove its key."""
    await scene.asking.answer(PROMPT, 2)
    (host,) = scene.serving[0].server._hosts.values()
    dialing = await host.place._dialing(host.place._order, host.place._order.next)
    stranger = scene.standbys[2]
    for claimed, key, why in (
        (scene.serving[0].provider, stranger.keys.service, "not the provider that it says"),
        (stranger.provider, stranger.keys.service, "no layers right before"),
    ):
        forged = replace(dialing, own_provider=claimed, service_key=key)
        with pytest.raises(NextStageFailed, match="next stage is not reached") as caught:
            await NextStage.dial(forged, LIMITS)
        assert isinstance(caught.value.__cause__, ChannelLost)
        assert why in caught.value.message
    decoder = scene.asking.lineup.decoder
    assert decoder is not None and (await decoder.decode_next(5, 4)).ids, "the session goes on"


@pytest.mark.usefixtures("links_only")
async def test_a_stage_that_becomes_slow_is_routed_around_and_not_held_for_dead(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SLOW_S", 0.05)
    slow = scene.serving[1]
    run = Sequence.pass_on

    async def slowly(self: Sequence, first_position: int, hidden: Hidden) -> Hidden:
        if self._engine is slow.engine.current():
            await asyncio.sleep(SLOWED_S)
        return await run(self, first_position, hidden)

    found: list[int] = []
    async for token in scene.asking.tokens(PROMPT, 48):
        found.append(token)
        if len(found) == 10:
            monkeypatch.setattr(Sequence, "pass_on", slowly)
    assert found == await whole_answer(scene.stages, PROMPT, 48)
    assert scene.asking.changes == [(slow.provider, scene.standbys[1].provider)]
    assert scene.asking.lineup.saved.failed == (), "nobody is rated for being slow"


@pytest.mark.usefixtures("links_only")
async def test_a_slow_stage_without_a_standby_goes_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SLOW_S", 0.05)
    monkeypatch.setattr(pace, "MEMORY_ROWS", 4)
    # Rows up to 64: there a window begins, and every fourth row from 44 on was timed.
    count = 64 - len(PROMPT) + 4
    slow = scene.serving[1]
    run = Sequence.pass_on

    async def slowly(self: Sequence, first_position: int, hidden: Hidden) -> Hidden:
        if self._engine is slow.engine.current():
            await asyncio.sleep(SLOWED_S)
        return await run(self, first_position, hidden)

    monkeypatch.setattr(Sequence, "pass_on", slowly)
    found = await scene.bystander.answer(PROMPT, count)
    assert found == await whole_answer(scene.stages, PROMPT, count)
    assert scene.bystander.changes == []
    assert scene.bystander.lineup._tolerated == {slow.provider}, "it was found slow, and nobody stands by"


async def test_a_last_stage_that_answers_before_rows_can_have_come_makes_nobody_else_fail(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client would ask at its pace, and the first stage refuse what it has no room for."""
    decode, first, last = RowWork._decode, scene.serving[0], scene.serving[-1]

    def is_of(work: RowWork, worker: Worker) -> bool:
        return any(host._work is work for host in worker.server._hosts.values())

    async def invents(self: RowWork, order: DecodeRows | TakeRows) -> None:
        if is_of(self, first):
            await asyncio.sleep(0.02)
        if not is_of(self, last):
            await decode(self, order)
            return
        assert isinstance(order, TakeRows)
        ids, logits = np.arange(order.top_k, dtype=np.int32), -np.arange(order.top_k, dtype=np.float32)
        await self._deliver(order, [RowOutput(order.first_position + order.rows - 1, ids, logits, 9.0)])

    monkeypatch.setattr(RowWork, "_decode", invents)
    assert await scene.asking.answer(PROMPT, 40) == [0] * 40
    assert scene.asking.changes == []
    assert scene.asking.lineup.saved.failed == ()
