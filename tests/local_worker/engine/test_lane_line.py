"""Three stages joined by lanes say what they say without: in whatever order things come, and whatever is guessed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_chat.session.request_numbers import RequestNumbers
from dllm_protocol.lane import LaneMessage
from local_worker.engine import lane_desk
from local_worker.engine.lane_frames import NO_TOKEN
from local_worker.engine.messages import Hidden, RowOutput
from local_worker.engine.ring import Ring
from tests.local_worker.engine.lane_bench import (
    FIRST,
    IN,
    LAST,
    MIDDLE,
    OUT,
    Bench,
    Input,
    hidden_row,
)

ROLES = (FIRST, MIDDLE, LAST)
ELSEWHERE = 1
"""A sequence of another session, over no lanes."""


class Eager(Ring):
    """One that always tells the first stage the likeliest token."""

    def tells(self, lane: int) -> bool:
        return super().tells(lane) or True


@pytest.fixture(autouse=True, scope="module")
def _eager() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lane_desk, "Ring", Eager)
        yield


class Line:
    """A client with three stages over lanes, which the test carries message by message, and three without."""

    def __init__(self, seed: int = 0) -> None:
        self.stages = [Bench(role) for role in ROLES]
        self.plain = [Bench(role, lanes=False) for role in ROLES]
        self.ways: list[deque[LaneMessage]] = [deque() for _ in ROLES]
        """What is on its way from each stage to the one behind it."""
        self.held = 0
        self.likeliest: list[int] = []
        self.lost = 0.0
        """How many tokens never come."""
        self._chance = np.random.default_rng(seed)
        self._weights = {
            (what, stage): float(self._chance.choice([0.02, 1.0]))
            for what in ("order", "carry", "run")
            for stage in range(3)
        }
        self._elsewhere: list[list[Input]] = [[] for _ in ROLES]
        self._elsewhere_calls: list[int | None] = [None for _ in ROLES]
        self._legs = [SimpleNamespace(last_request=0) for _ in ROLES]
        self._numbers = RequestNumbers(cast(Any, [SimpleNamespace(leg=leg) for leg in self._legs]))

    # --- what happens meanwhile

    def moves(self) -> list[tuple[str, int]]:
        """What can happen at stages by itself."""
        for way, stage in zip(self.ways, self.stages, strict=True):
            way.extend(stage.far[OUT].received())
        found = [("carry", stage) for stage, way in enumerate(self.ways) if way]
        return found + [("run", number) for number, stage in enumerate(self.stages) if stage.scheduler.busy]

    def move(self, what: str, stage: int) -> None:
        if what == "run":
            self.stages[stage].run()
            return
        message = self.ways[stage].popleft()
        if stage == 2 and self._chance.random() < self.lost:
            return
        behind = self.stages[(stage + 1) % 3]
        behind.far[IN].send(*message)
        behind.hear(IN, runs=False)

    def choose(self, moves: list[tuple[str, int]]) -> tuple[str, int]:
        weights = np.array([self._weights[one] for one in moves])
        return moves[int(self._chance.choice(len(moves), p=weights / weights.sum()))]

    def some_moves(self) -> None:
        for _ in range(int(self._chance.integers(6))):
            if moves := self.moves():
                self.move(*self.choose(moves))

    def settle(self) -> None:
        """Until nothing is on its way."""
        while moves := self.moves():
            self.move(*moves[0])

    # --- what the client wants

    def _request(self, number: int) -> int:
        for leg in self._legs:
            assert number > leg.last_request
            leg.last_request = number
        return number

    def row(self, position: int, token: int) -> None:
        """A single row, which goes over lanes."""
        request = self._request(self._numbers.next_row(position, token))
        calls: dict[int, int] = {}
        while not all(stage in calls and calls[stage] in self.stages[stage].answers for stage in range(3)):
            orders = [("order", stage) for stage in range(3) if stage not in calls]
            moves = self.moves() + orders
            assert moves, "the line stands still"
            what, stage = self.choose(moves)
            if what == "order":
                given = token if stage == 0 else NO_TOKEN
                calls[stage] = self.stages[stage].order(request, position, given, runs=False)
            else:
                self.move(what, stage)
        hidden = [self.stages[stage].hidden(calls[stage]) for stage in range(2)]
        assert all(one.sent and one.first_position == position for one in hidden)
        answer = self.stages[2].rows(calls[2])
        self._compare(position, [token], [one.rows for one in hidden], answer.rows)
        self._numbers.told(request, self.likeliest[0])

    def window(self, position: int, tokens: list[int]) -> None:
        """Rows that go over no lane."""
        self._request(self._numbers.next())
        inputs: list[Input] = list(tokens)
        hidden = []
        for number, stage in enumerate(self.stages):
            self.some_moves()
            call = stage.plain(position, inputs, wants_all=True, runs=False)
            while call not in stage.answers:
                self.move(*self.choose(self.moves()))
            if number < 2:
                hidden.append(stage.hidden(call).rows)
                inputs = [row.reshape(1, -1) for row in hidden[-1]]
        self._compare(position, tokens, hidden, self.stages[2].rows(call).rows)

    def _compare(self, position: int, tokens: list[int], hidden: list[Hidden], rows: list[RowOutput]) -> None:
        inputs: list[Input] = list(tokens)
        for stage, got in zip(self.plain[:2], hidden, strict=True):
            wanted = stage.hidden(stage.plain(position, inputs)).rows
            assert got.tobytes() == wanted.tobytes()
            inputs = [row.reshape(1, -1) for row in wanted]
        last = self.plain[2]
        expected = last.rows(last.plain(position, inputs, wants_all=True)).rows
        assert [_said(row) for row in rows] == [_said(row) for row in expected]
        self.held = position + len(tokens)
        self.likeliest = rows[-1].ids.tolist()
        for one in self.stages:
            assert one.scheduler.held_rows(0) == self.held
            assert len(one.model.kv[0]) - self.held in (0, 1), "one row ahead at most"
            assert not one.down

    def elsewhere(self, stage: int) -> None:
        """Another session's row at one stage, if the one before is done."""
        bench, rows = self.stages[stage], self._elsewhere[stage]
        call = self._elsewhere_calls[stage]
        if call is not None and call not in bench.answers:
            return
        if call is not None:
            output = bench.output(rows)
            if stage < 2:
                assert bench.hidden(call).rows[-1].tobytes() == output.tobytes()
            else:
                assert int(bench.rows(call).rows[0].ids[0]) == int(output.argmax())
        one: Input = len(rows) % 40 if stage == 0 else hidden_row(100 + len(rows))
        rows.append(one)
        self._elsewhere_calls[stage] = bench.plain(len(rows) - 1, [one], sequence=ELSEWHERE, runs=False)


def _said(row: RowOutput) -> tuple[int, list[int], bytes, float]:
    return row.position, row.ids.tolist(), row.logits.tobytes(), row.logsumexp


def test_a_client_that_takes_the_likeliest_tokens_finds_each_row_decoded_at_all_stages() -> None:
    line = Line()
    line.window(0, [1, 2, 3])
    line.row(3, line.likeliest[0])
    for position in range(4, 30):
        line.settle()
        decodes = [stage.model.decodes for stage in line.stages]
        assert [len(stage.model.kv[0]) for stage in line.stages] == [position + 1] * 3
        line.row(position, line.likeliest[0])
        line.settle()
        assert [stage.model.decodes for stage in line.stages] == [one + 1 for one in decodes]


def test_a_client_that_never_does_has_its_own_rows() -> None:
    line = Line()
    line.window(0, [1, 2, 3])
    for position in range(3, 20):
        line.row(position, line.likeliest[1])
        line.settle()
        assert [len(stage.model.kv[0]) for stage in line.stages] == [position + 2] * 3, "all guessed, in vain"


STEPS = ("go", "go", "go", "other", "window", "back", "again", "elsewhere", "about", "alone", "settle")


@given(
    seed=st.integers(0, 1 << 32),
    lost=st.sampled_from([0.0, 0.3]),
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 6)), max_size=14),
)
def test_whatever_comes_when_the_answers_are_those_without_lanes(
    seed: int, lost: float, steps: list[tuple[str, int]]
) -> None:
    line = Line(seed)
    line.lost = lost
    line.window(0, [1, 2, 3])
    for what, number in steps:
        if what == "go":
            for _ in range(number):
                line.row(line.held, line.likeliest[0])
        elif what == "other":
            line.row(line.held, line.likeliest[number % 4 + 1])
        elif what == "window":
            line.window(line.held, [line.likeliest[0], *range(number)])
        elif what == "back":
            line.window(max(0, line.held - number), list(range(number // 2 + 1)))
        elif what == "again":
            line.row(max(0, line.held - number), line.likeliest[0])
        elif what == "elsewhere":
            line.elsewhere(number % 3)
        elif what == "settle":
            line.settle()
        else:
            for stage in line.stages[: number % 3 + 1]:
                stage.about = {0, ELSEWHERE} if what == "about" else set()
    line.settle()
