"""A row that is awaited over a lane: whoever awaits it hears once if it comes by the link, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dllm_protocol.errors import ChannelRefused
from dllm_protocol.messages import OUTPUTS_LAST, ROW_KEPT
from dllm_protocol.session.orders import TakeRows
from local_worker.engine.errors import DecodeCancelled, DecodeRefused
from local_worker.engine.messages import LaneAnswer, Ticket
from local_worker.errors import PreviousStageFailed
from local_worker.previous_stage import PreviousStage
from local_worker.row_room import RowRoom
from local_worker.row_work import RowWork
from tests.local_worker.test_previous_stage import WIDTH, Wire, reading, rows_of, settle


class Watched:
    """A stage before, a link to it, and how often its watcher was called."""

    def __init__(self) -> None:
        self.room = RowRoom()
        self.stage = PreviousStage(self.room)
        self.wire = Wire()
        self.task = reading(self.stage, self.wire)
        self.calls = 0

    def watch(self, request: int) -> None:
        self.stage.watch(request, self._changed)

    def _changed(self) -> None:
        self.calls += 1

    async def come(self, *requests: int) -> None:
        """Rows come by the link."""
        self.stage.hang_up()
        self.wire.abort()
        await asyncio.gather(self.task, return_exceptions=True)
        self.wire = Wire(*[rows_of(request, float(request)) for request in requests])
        self.task = reading(self.stage, self.wire)
        await settle()

    async def cut(self) -> None:
        """The link ends."""
        self.wire.abort()
        with pytest.raises(ChannelRefused):
            await self.task


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    one = Watched()
    await settle()
    yield one
    one.task.cancel()
    await asyncio.gather(one.task, return_exceptions=True)


async def test_a_row_that_comes_by_the_link_is_told_once_and_stays_there(watched: Watched) -> None:
    watched.watch(7)
    assert (watched.calls, watched.stage.has_news(7)) == (0, False)
    await watched.come(7, 7)
    assert (watched.calls, watched.stage.has_news(7)) == (1, True)
    assert (await watched.stage.rows(7, 0, 1, WIDTH) == 7.0).all()
    await watched.come(8)
    assert watched.calls == 1


async def test_a_row_that_is_there_already_is_told_at_once(watched: Watched) -> None:
    await watched.come(7)
    watched.watch(7)
    assert watched.calls == 1


async def test_rows_for_other_requests_are_no_news(watched: Watched) -> None:
    await watched.come(5)
    watched.watch(7)
    assert not watched.stage.has_news(7)
    assert watched.room.waiting_bytes == 0, "what was for an earlier request is nobody's"
    await watched.come(6, 8)
    assert (watched.calls, watched.stage.has_news(7)) == (0, False)
    assert watched.stage.has_news(8)


async def test_the_end_of_the_link_is_told_once(watched: Watched) -> None:
    watched.watch(7)
    await watched.cut()
    assert (watched.calls, watched.stage.has_news(7)) == (1, True)
    with pytest.raises(PreviousStageFailed, match="the stage before is gone: cut"):
        await watched.stage.rows(7, 0, 1, WIDTH)
    watched.watch(8)
    assert watched.calls == 2, "whoever watches behind a link that has ended hears at once"


async def test_a_cancel_is_told_once_and_only_that_of_this_request(watched: Watched) -> None:
    watched.watch(7)
    watched.stage.cancel(6)
    assert (watched.calls, watched.stage.has_news(7)) == (0, False)
    watched.stage.cancel(7)
    watched.stage.cancel(7)
    assert (watched.calls, watched.stage.has_news(7)) == (1, True)
    with pytest.raises(DecodeCancelled):
        await watched.stage.rows(7, 0, 1, WIDTH)


async def test_a_cancel_that_came_first_is_told_at_once(watched: Watched) -> None:
    watched.stage.cancel(7)
    watched.watch(7)
    assert watched.calls == 1


async def test_another_provider_in_the_place_before_is_no_news_by_itself(watched: Watched) -> None:
    watched.watch(7)
    watched.stage.hang_up()
    await settle()
    assert (watched.calls, watched.stage.has_news(7)) == (0, False)
    await watched.come(7)
    assert watched.calls == 1


async def test_rows_of_a_request_that_has_passed_are_nobodys(watched: Watched) -> None:
    watched.watch(7)
    watched.stage.passed(7)
    await watched.come(7)
    assert watched.calls == 0
    assert not watched.stage.has_news(7)
    assert watched.room.waiting_bytes == 0
    await watched.cut()
    assert watched.calls == 0, "who has its row does not hear of the link either"


async def test_the_next_request_goes_on_behind_one_that_has_passed(watched: Watched) -> None:
    watched.watch(7)
    watched.stage.passed(7)
    await watched.come(7, 8)
    assert (await watched.stage.rows(8, 0, 1, WIDTH) == 8.0).all()
    watched.watch(9)
    watched.stage.passed(9)
    watched.watch(10)
    await watched.come(9, 10)
    assert watched.calls == 1


async def test_a_newer_watcher_takes_the_place_of_the_older(watched: Watched) -> None:
    old: list[str] = []
    watched.stage.watch(7, lambda: old.append("called"))
    watched.watch(8)
    await watched.come(8)
    assert (old, watched.calls) == ([], 1)


async def test_a_watcher_may_look_and_take_the_row_at_once(watched: Watched) -> None:
    found: list[bool] = []
    watched.stage.watch(7, lambda: found.append(watched.stage.has_news(7)))
    await watched.come(7)
    assert found == [True]


class Waiting:
    """A place in an engine over whose lane nothing comes; as there, a cancel is for the call that is under way."""

    def __init__(self) -> None:
        self._call: asyncio.Future[LaneAnswer] | None = None

    async def over_lanes(self, first_position: int, ticket: Ticket, *, top_k: int) -> LaneAnswer:
        self._call = asyncio.get_running_loop().create_future()
        return await self._call

    def cancel(self) -> None:
        if self._call is not None and not self._call.done():
            self._call.set_exception(DecodeCancelled("cancelled"))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["row", "cancel"])
async def test_what_comes_by_the_link_is_heard_by_whoever_awaits_a_lane_whenever_it_comes(
    watched: Watched, when: str, what: str
) -> None:
    """A row that was ordered late may be there already: then there is nothing yet that a cancel could be for."""
    until_s = asyncio.get_running_loop().time() + 3600
    place = SimpleNamespace(previous=watched.stage, lanes=SimpleNamespace(stands_in=lambda _: True))
    leg = SimpleNamespace(terms=SimpleNamespace(session=b"s"))
    work = RowWork(*cast(Any, (leg, None, None, place, None)))
    held, order = SimpleNamespace(sequence=Waiting()), SimpleNamespace(request=7, first_position=0, top_k=1)
    waiting = None
    if when == "after":
        waiting = asyncio.create_task(work._from_before(*cast(Any, (order, Ticket(7, 1, 0), held, until_s))))
        await settle()
    if what == "row":
        await watched.come(7)
    else:
        watched.stage.cancel(7)
    if waiting is None:
        waiting = asyncio.create_task(work._from_before(*cast(Any, (order, Ticket(7, 1, 0), held, until_s))))
    async with asyncio.timeout(20):
        assert await waiting is None, "it goes over the link"
    if what == "row":
        assert (await watched.stage.rows(7, 0, 1, WIDTH) == 7.0).all()
    else:
        with pytest.raises(DecodeCancelled):
            await watched.stage.rows(7, 0, 1, WIDTH)


class Rising:
    """A lane in that stands from some moment on."""

    fault = ""

    def __init__(self) -> None:
        self.is_up = False
        self.on_rise = lambda: None

    def ticket(self, request: int, *, is_first: bool) -> Ticket | None:
        return Ticket(request, 1, 0) if self.is_up and not is_first else None


@pytest.mark.parametrize("way", ["lane", "link"])
async def test_a_lane_that_stands_before_this_stage_knows_it_is_heard_all_the_same(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The stage before may know first: its row is in this one's engine while this one looks for it on the link."""
    lanes, answer = Rising(), LaneAnswer(None, [], False)
    place = SimpleNamespace(previous=watched.stage, lanes=lanes, want_lane=lambda: None)
    leg = SimpleNamespace(terms=SimpleNamespace(session=b"s"))

    async def committed() -> None:
        await asyncio.sleep(0)

    async def from_before(self: RowWork, *_: object) -> LaneAnswer:
        return answer

    monkeypatch.setattr(RowWork, "_from_before", from_before)
    held = SimpleNamespace(decoding=True, note_labelled=lambda *_: None)
    bench = SimpleNamespace(pool=SimpleNamespace(take=lambda _: held))
    work = RowWork(*cast(Any, (leg, None, bench, place, committed)))
    order = TakeRows(7, 0, 1, ROW_KEPT, 1, OUTPUTS_LAST, b"label")
    single = asyncio.create_task(work._single(order, cast(Any, SimpleNamespace(takes_hidden=True))))
    await settle()
    assert not single.done()
    if way == "lane":
        lanes.is_up = True
        lanes.on_rise()
    else:
        await watched.come(7)
    async with asyncio.timeout(20):
        assert await single is (answer if way == "lane" else None)


@pytest.mark.parametrize("stands", [True, False])
async def test_a_lane_that_another_one_replaced_is_nobodys_fault(watched: Watched, stands: bool) -> None:
    """The stage before may dial twice: what waited at the first lane looks elsewhere, and this stage has not failed."""
    until_s = asyncio.get_running_loop().time() + 3600
    lanes = SimpleNamespace(stands_in=lambda number: stands and number == 1)
    pool = SimpleNamespace(held_rows=lambda _: 10)
    bench = SimpleNamespace(pool=pool, context_rows=100)
    leg = SimpleNamespace(terms=SimpleNamespace(session=b"s"))
    place = SimpleNamespace(previous=watched.stage, lanes=lanes)
    work = RowWork(*cast(Any, (leg, None, bench, place, None)))
    held, order = SimpleNamespace(sequence=Waiting()), SimpleNamespace(request=7, first_position=3, top_k=1)
    waiting = asyncio.create_task(work._from_before(*cast(Any, (order, Ticket(7, 1, 0), held, until_s))))
    await settle()
    held.sequence.cancel()
    if stands:  # then the client gave it up
        with pytest.raises(DecodeCancelled):
            await waiting
    else:
        assert await waiting is None


async def test_rows_that_had_to_make_room_while_a_lane_was_watched_are_lost_and_nobody_has_failed(
    watched: Watched,
) -> None:
    until_s = asyncio.get_running_loop().time() + 3600
    lanes = SimpleNamespace(stands_in=lambda _: True)
    bench = SimpleNamespace(pool=SimpleNamespace(held_rows=lambda _: 0), context_rows=100)
    leg = SimpleNamespace(terms=SimpleNamespace(session=b"s"))
    place = SimpleNamespace(previous=watched.stage, lanes=lanes)
    work = RowWork(*cast(Any, (leg, None, bench, place, None)))
    held, order = SimpleNamespace(sequence=Waiting()), SimpleNamespace(request=7, first_position=3, top_k=1)
    waiting = asyncio.create_task(work._from_before(*cast(Any, (order, Ticket(7, 1, 0), held, until_s))))
    await settle()
    held.sequence.cancel()
    with pytest.raises(DecodeRefused, match="0 rows are held here"):
        await waiting


async def test_a_row_that_was_given_up_before_it_came_is_in_no_count_and_not_held(watched: Watched) -> None:
    """Rows behind it may still stand in the cache, from before: they are not this one."""
    noted: list[int] = []
    lanes = SimpleNamespace(fault="", stands_in=lambda _: True, ticket=lambda *_, **__: Ticket(7, 1, 0))

    async def committed() -> None:
        await asyncio.sleep(0)

    held = SimpleNamespace(sequence=Waiting(), decoding=True, note_labelled=lambda *_: noted.append(1))
    pool = SimpleNamespace(take=lambda _: held, held_rows=lambda _: 10)
    bench = SimpleNamespace(pool=pool, context_rows=100)
    place = SimpleNamespace(previous=watched.stage, lanes=lanes, want_lane=lambda: None)
    leg = SimpleNamespace(terms=SimpleNamespace(session=b"s"))
    work = RowWork(*cast(Any, (leg, None, bench, place, committed)))
    order = TakeRows(7, 3, 1, ROW_KEPT, 1, OUTPUTS_LAST, b"label")
    single = asyncio.create_task(work._single(order, cast(Any, SimpleNamespace(takes_hidden=True))))
    await settle()
    assert work._held is held, "a cancel finds it"
    held.sequence.cancel()
    with pytest.raises(DecodeCancelled) as caught:
        await single
    assert work._rows_done(order, caught.value) == 0
    assert not noted
