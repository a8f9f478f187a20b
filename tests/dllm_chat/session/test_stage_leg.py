"""Frames that a stage gets soon instead of now: in their order, never lost in silence."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dllm_chat.session.stage_leg import StageFailed, StageLeg
from light_node.channel.errors import ChannelLost


class Line:
    """Where frames go: takes them at once, or lets everybody wait, or is gone."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.is_slow = False
        self.is_gone = False
        self.closed = False

    def send_at_once(self, frame: bytes) -> bool:
        if self.is_slow or self.is_gone:
            return False
        self.sent.append(frame)
        return True

    async def send(self, frame: bytes) -> None:
        if self.is_gone:
            raise ChannelLost("gone")
        self.sent.append(frame)
        if self.is_slow:
            await asyncio.sleep(0)

    async def receive(self, _timeout_ms: int) -> tuple[Any, ...]:
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        self.closed = True


def leg_over(line: Line) -> tuple[StageLeg, list[str]]:
    sealer = SimpleNamespace(
        provider=b"\1" * 20, goodbye=lambda reason: reason.encode(), forget_unanswered=lambda: None
    )
    leg = StageLeg(cast(Any, line), cast(Any, sealer), 4, lambda: 0.0)
    heard: list[str] = []
    leg.read(lambda _leg, _message: None, lambda: heard.append("changed"))
    return leg, heard


async def test_what_is_posted_goes_when_others_had_their_turn() -> None:
    line = Line()
    leg, _ = leg_over(line)
    leg.post(b"1")
    leg.post(b"2")
    assert line.sent == []
    await asyncio.sleep(0)
    assert line.sent == [b"1", b"2"]
    await leg.close("bye")


async def test_what_is_sent_goes_behind_what_was_posted() -> None:
    line = Line()
    leg, _ = leg_over(line)
    leg.post(b"1")
    await leg.send(b"2")
    assert line.sent == [b"1", b"2"]
    await leg.close("bye")
    assert line.sent == [b"1", b"2", b"bye"] and line.closed


@pytest.mark.parametrize("count", [1, 3])
async def test_a_slow_stage_gets_all_in_order(count: int) -> None:
    line = Line()
    line.is_slow = True
    leg, _ = leg_over(line)
    wanted = [bytes([at]) for at in range(count)]
    for frame in wanted:
        leg.post(frame)
    await asyncio.sleep(0)
    leg.post(b"later")
    for _ in range(10):
        await asyncio.sleep(0)
    assert line.sent == [*wanted, b"later"]
    await leg.close("bye")


async def test_a_goodbye_goes_behind_what_was_posted() -> None:
    """No frame opens without the ones that were sealed before it."""
    line = Line()
    leg, _ = leg_over(line)
    leg.post(b"1")
    await leg.close("bye")
    assert line.sent == [b"1", b"bye"]


async def test_a_stage_that_is_gone_is_told() -> None:
    line = Line()
    line.is_gone = True
    leg, heard = leg_over(line)
    leg.post(b"1")
    leg.post(b"2")
    for _ in range(3):
        await asyncio.sleep(0)
    assert isinstance(leg.failure, ChannelLost)
    assert heard == ["changed"]
    with pytest.raises(StageFailed, match="cannot be reached"):
        await leg.send(b"3")
    await leg.close("bye")
    assert line.sent == []
