"""Rows of the stage before: bounded whatever it sends, and never those of somebody who stood there earlier."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

import numpy as np
import pytest

from dllm_protocol.encoding import Record
from dllm_protocol.errors import ChannelRefused
from dllm_protocol.messages import FORM_F32
from dllm_protocol.stage_link import Filler, HandedRows
from local_worker import previous_stage
from local_worker.engine.errors import EngineBusy
from local_worker.previous_stage import FRAME_BYTES, PreviousStage
from local_worker.row_room import RowRoom

WIDTH = 4


class Wire:
    """A link that gives what was put into it, and nothing more until somebody cuts it."""

    def __init__(self, *messages: Record) -> None:
        self.left = deque(messages)
        self.taken = 0
        self.answers = 0
        self.cut = asyncio.Event()

    async def receive(self) -> Any:
        if not self.left:
            await self.cut.wait()
        if not self.left:
            raise ChannelRefused("cut")
        self.taken += 1
        return (self.left.popleft(),)

    def open(self, frame: Any) -> Any:
        return frame

    def seal(self, message: Record) -> Any:
        return message

    async def send(self, message: Any) -> None:
        self.answers += 1

    def abort(self) -> None:
        """As a socket does: what it has already is still given."""
        self.cut.set()


def rows_of(request: int, number: float, count: int = 1) -> HandedRows:
    return HandedRows(request, 0, count, FORM_F32, np.full(count * WIDTH, number, "<f4").tobytes())


def reading(stage: PreviousStage, wire: Wire) -> asyncio.Task[None]:
    return asyncio.create_task(stage.read(cast(Any, wire), cast(Any, wire)))


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.parametrize("waiting_bytes", [0, 1 << 20])
async def test_rows_of_a_link_that_was_replaced_are_nobodys(
    monkeypatch: pytest.MonkeyPatch, waiting_bytes: int
) -> None:
    """Whether they waited for room here, or in the socket: a provider that was replaced speaks for no successor."""
    monkeypatch.setattr(previous_stage, "WAITING_BYTES", waiting_bytes)
    stage = PreviousStage(RowRoom())
    old = Wire(rows_of(7, 1.0), rows_of(8, 1.0))
    first = reading(stage, old)
    await settle()
    old.left += (rows_of(8, 1.0), rows_of(9, 1.0))
    stage.hang_up()
    with pytest.raises(ChannelRefused):
        await first
    new = Wire(rows_of(8, 2.0), rows_of(9, 2.0))
    second = reading(stage, new)
    for request in (8, 9):
        assert (await stage.rows(request, 0, 1, WIDTH) == 2.0).all()
    new.abort()
    with pytest.raises(ChannelRefused):
        await second


async def test_many_frames_with_next_to_nothing_in_them_wait_in_the_socket() -> None:
    stage = PreviousStage(RowRoom())
    wire = Wire(*[HandedRows(5, 0, 1, FORM_F32, b"12")] * 100_000)
    task = reading(stage, wire)
    while True:
        before = wire.taken
        await settle()
        if wire.taken == before:
            break
    assert wire.taken * previous_stage.FRAME_BYTES < previous_stage.WAITING_BYTES + 1024
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_rows_that_nobody_waits_for_any_more_make_no_room_scarce(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(previous_stage, "WAITING_BYTES", 0)
    stage = PreviousStage(RowRoom())
    wire = Wire(rows_of(1, 1.0), rows_of(1, 1.0), rows_of(2, 2.0))
    task = reading(stage, wire)
    assert (await stage.rows(2, 0, 1, WIDTH) == 2.0).all()
    wire.abort()
    with pytest.raises(ChannelRefused):
        await task


async def test_sessions_together_keep_no_more_rows_waiting_than_there_is_room_for() -> None:
    """Whoever opens many sessions and stands before this stage in all of them fills no more than that."""
    frame, sessions = rows_of(7, 1.0, 8), 12
    frame_bytes = FRAME_BYTES + len(frame.data)
    shared = RowRoom(waiting_limit_bytes=4 * frame_bytes)
    stages = [PreviousStage(shared) for _ in range(sessions)]
    wires = [Wire(*[rows_of(7, 1.0, 8) for _ in range(9)]) for _ in stages]
    readers = [reading(stage, wire) for stage, wire in zip(stages, wires, strict=True)]
    await settle()
    assert shared.waiting_bytes <= (4 + sessions) * frame_bytes
    assert all(wire.taken for wire in wires), "each has one frame here, whatever the others do"
    # Whoever decodes gets its rows, one frame after the other.
    for stage in stages:
        assert len(await stage.rows(7, 0, 8, WIDTH)) == 8
    for wire, reader in zip(wires, readers, strict=True):
        wire.left.clear()
        wire.abort()
        with pytest.raises(ChannelRefused):
            await reader
    for stage in stages:
        stage.hang_up()
    assert shared.waiting_bytes == 0


async def test_requests_whose_rows_never_come_in_full_are_bounded_together() -> None:
    shared = RowRoom(gathered_limit_bytes=3 * 8 * WIDTH * 4)
    stages = [PreviousStage(shared) for _ in range(5)]
    readers = [reading(stage, Wire(rows_of(7, 1.0, 4))) for stage in stages]
    waiting = [asyncio.create_task(stage.rows(7, 0, 8, WIDTH)) for stage in stages]
    await settle()
    refused = [task for task in waiting if task.done()]
    assert len(refused) == 2 and all(isinstance(task.exception(), EngineBusy) for task in refused)
    for task in (*waiting, *readers):
        task.cancel()
    await asyncio.gather(*waiting, *readers, return_exceptions=True)
    assert shared.gathered_bytes == 0


async def test_a_link_is_not_measured_without_end() -> None:
    """Bytes that only measure cost this stage as much as the other one, and nobody pays for them."""
    wire = Wire(*[Filler(1, bytes(1000))] * (previous_stage.MAX_FILLERS + 1))
    with pytest.raises(ChannelRefused, match="does not send Filler now"):
        await reading(PreviousStage(RowRoom()), wire)
    assert wire.answers == previous_stage.MAX_FILLERS >= 2
