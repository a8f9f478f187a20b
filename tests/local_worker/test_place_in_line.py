"""A place in a line ends with its session, and what is said of it is said to the end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dllm_protocol.encoding import Record
from dllm_protocol.errors import ChannelRefused
from dllm_protocol.session.orders import StandBetween
from dllm_protocol.stage_link import StageGoodbye, StageReady
from local_worker.next_stage import NextStage
from local_worker.place_in_line import PlaceInLine
from local_worker.row_room import RowRoom

BEFORE, BEHIND = b"b" * 20, b"n" * 20


class Wire:
    """A link that stands until somebody cuts it; both its halves in one."""

    def __init__(self) -> None:
        self.sent: list[Record] = []
        self.cut = asyncio.Event()

    def seal(self, message: Record) -> Any:
        return message

    def open(self, frame: Any) -> Any:
        return frame

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def receive(self) -> Any:
        await self.cut.wait()
        raise ChannelRefused("cut")

    def abort(self) -> None:
        self.cut.set()


class Told:
    """What a client hears; it may be slow to take it."""

    def __init__(self) -> None:
        self.lines: list[int] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def tell(self, order: StandBetween, _behind: NextStage | None) -> None:
        await self.reads.wait()
        self.lines.append(order.generation)

    async def lost(self, generation: int, _reason: str) -> None:
        await self.reads.wait()
        self.lines.append(-generation)


def place_of(told: Told) -> PlaceInLine:
    return PlaceInLine(
        cast(Any, None),
        cast(Any, SimpleNamespace(room=RowRoom())),
        lambda: 4,
        told.tell,
        told.lost,
        cast(Any, None),
    )


def taking(place: PlaceInLine, wire: Wire) -> asyncio.Task[None]:
    return asyncio.create_task(place.take(BEFORE, cast(Any, wire), cast(Any, wire)))


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("named", [True, False])
async def test_a_link_that_comes_as_the_session_ends_is_not_served(named: bool) -> None:
    """Else it stands for as long as the stage before likes, in a session that nobody serves any more."""
    place = place_of(Told())
    place.stand(StandBetween(1, BEFORE if named else b"", b"", 0))
    early, late = Wire(), Wire()
    waiting = taking(place, early)
    await settle()
    await place.close()
    arrived = taking(place, late)
    done, _ = await asyncio.wait((waiting, arrived), timeout=60)
    assert done == {waiting, arrived}
    for task in done:
        assert isinstance(task.exception(), ChannelRefused)
    assert [type(one) for one in late.sent] == [StageGoodbye]
    assert [type(one) for one in early.sent] == [StageReady if named else StageGoodbye]


async def test_a_line_that_changes_does_not_swallow_what_was_said_of_the_one_before() -> None:
    """It is sealed already: without it nothing that is said later can be opened."""
    told = Told()
    place = place_of(told)
    told.reads.clear()
    place.stand(StandBetween(1, BEFORE, b"", 0))
    await settle()
    place.stand(StandBetween(2, BEFORE, b"", 0))
    await settle()
    told.reads.set()
    await settle()
    assert told.lines == [1, 2]
    await place.close()


async def test_a_link_that_fails_is_told_even_if_the_line_changes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nobody(self: PlaceInLine, order: StandBetween, to: bytes) -> None:
        raise ChannelRefused("nobody is there")

    monkeypatch.setattr(PlaceInLine, "_dialing", nobody)
    told = Told()
    place = place_of(told)
    place._terms = cast(Any, type("Terms", (), {"session": bytes(32)}))
    told.reads.clear()
    place.stand(StandBetween(1, BEFORE, BEHIND, 0))
    await settle()
    place.stand(StandBetween(2, BEFORE, b"", 0))
    await settle()
    told.reads.set()
    await settle()
    assert told.lines == [-1, 2]
    await place.close()
