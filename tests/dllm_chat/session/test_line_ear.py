"""What a line makes of its stages' words, whatever order they come in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dllm_chat.session.leg import RowsLost
from dllm_chat.session.line_ear import LineEar
from dllm_chat.session.pace import MEMORY_ROWS, Pace
from dllm_chat.session.stage_leg import StageFailed, StageLeg, StageSlow
from dllm_protocol.messages import REFUSED_ENGINE, REFUSED_REQUEST, Done, Refused
from dllm_protocol.session.ledger import WINDOW_KEPT_ROWS


def leg_of(number: int) -> StageLeg:
    return cast(
        StageLeg,
        SimpleNamespace(
            provider=bytes([number]) * 20,
            unanswered=[],
            failure=None,
            link_round_trip_s=0.0,
            read=lambda _take, _changed: None,
            has_answered=lambda _request: True,
            assume_done=lambda _request: None,
        ),
    )


@pytest.fixture
def line() -> tuple[LineEar, list[StageLeg]]:
    legs = [leg_of(number) for number in range(1, 4)]
    return LineEar(legs, 1, Pace([1, 1, 1]), lambda: 0.0), legs


def refused(request: int) -> Refused:
    return Refused(request, REFUSED_ENGINE, "the engine has ended", 0)


def test_a_stage_whose_engine_ended_behind_a_row_that_was_answered_has_not_failed_in_it(
    line: tuple[LineEar, list[StageLeg]],
) -> None:
    """The row went from engine to engine; only its own service never heard of it. The next row finds its rows gone."""
    ear, (_, middle, last) = line
    ear._take(last, Done(5))
    ear._take(middle, refused(5))
    ear.raise_failures()
    ear._take(middle, refused(6))
    with pytest.raises(StageFailed, match="stage 2 refused: the engine has ended") as failed:
        ear.raise_failures()
    assert failed.value.provider == middle.provider


def test_a_last_stage_that_refuses_has_failed_whatever_it_answered_before(
    line: tuple[LineEar, list[StageLeg]],
) -> None:
    ear, (*_, last) = line
    ear._take(last, Done(5))
    ear._take(last, refused(5))
    with pytest.raises(StageFailed, match="stage 3 refused"):
        ear.raise_failures()


def test_what_was_given_up_is_nobodys_failure(line: tuple[LineEar, list[StageLeg]]) -> None:
    ear, (first, *_) = line
    ear.given_up.add(5)
    ear._take(first, refused(5))
    ear.raise_failures()


async def test_nobody_is_asked_for_more_before_all_have_done_what_the_last_one_answered(
    line: tuple[LineEar, list[StageLeg]],
) -> None:
    ear, (first, *_) = line
    await ear.all_caught_up()
    cast(Any, first).unanswered = [4]
    ear.given_up.add(4)
    await ear.all_caught_up()
    ear.given_up.clear()
    cast(Any, first).failure = cast(Any, refused_channel())
    with pytest.raises(StageFailed, match="the channel to stage 1 failed"):
        await ear.all_caught_up()


def test_a_stage_is_slow_whose_row_is_long_on_its_way_and_not_one_whose_neighbours_word_comes_late() -> None:
    legs, now_s = [leg_of(number) for number in range(1, 4)], 0.0
    first, middle, last = legs
    ear = LineEar(legs, 1, Pace([1, 1, 1]), lambda: now_s)
    for request in range(1, MEMORY_ROWS + 1):
        ear.time_row(request)
        ear.require_pace(request * WINDOW_KEPT_ROWS, ())
        for leg, later_s in ((first, 0.01), (last, 0.5), (middle, 0.3)):
            now_s += later_s
            ear._take(leg, Done(request))
    rows = (MEMORY_ROWS + 1) * WINDOW_KEPT_ROWS
    ear.require_pace(rows, {middle.provider})
    ear.require_pace(rows + WINDOW_KEPT_ROWS - 1, ())
    with pytest.raises(StageSlow, match="stage 2 has become slow") as slow:
        ear.require_pace(rows + WINDOW_KEPT_ROWS, ())
    assert slow.value.provider == middle.provider


def test_a_row_that_not_every_stage_has_done_says_nothing_of_anybodys_pace(
    line: tuple[LineEar, list[StageLeg]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ear, (first, middle, last) = line
    noted: list[float] = []
    monkeypatch.setattr(ear._pace, "note_row", noted.extend)
    ear.time_row(1)
    ear._take(first, Done(1))
    ear._take(last, Done(1))
    ear.time_row(2)
    ear._take(middle, Done(1))
    for leg in (first, last, last):
        ear._take(leg, Done(2))
    assert noted == []
    ear._take(middle, Done(2))
    ear._take(middle, Done(2))
    assert len(noted) == 3


def refused_channel() -> Exception:
    return StageSlow(b"\1" * 20, "gone")


def test_what_one_stage_lost_is_one_loss_however_many_requests_it_refuses() -> None:
    legs = [leg_of(number) for number in range(1, 4)]
    ear = LineEar(legs, 1, Pace([1, 1, 1]), lambda: 0.0)
    for request in (5, 6, 7):
        ear._take(legs[1], Refused(request, REFUSED_REQUEST, "gone", 0))
    with pytest.raises(RowsLost, match="stage 2 lost rows: gone"):
        ear.raise_failures()
    ear.raise_failures()
