"""Rows that go from one engine to the next over lanes, and what the likeliest next token is good for.

An order says which row is to be computed; the row itself comes over a lane, before the order or behind it. What it
becomes goes out over another lane at once, and to the service as every answer does: it keeps a copy, counts rows, and
tells the client. So the service decides everything, and stands in nobody's way.

At the first stage the last one's lane brings the likeliest next token. Its row is decoded ahead of the order for it,
and handed on under the request that will be the client's if it agrees; the next stages do the same with what reaches
them. Each of them is one row ahead at most, and answers nobody before the order has come.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from dllm_protocol.errors import ChannelRefused
from dllm_protocol.lane import KIND_BF16, KIND_F32, KIND_TOKEN, LaneMessage, token_body
from local_worker.engine.frames import Failure, Kind, frame
from local_worker.engine.hidden import hidden_frame
from local_worker.engine.lane_end import LaneBroken, LaneEnd, LaneFault
from local_worker.engine.lane_frames import NO_TOKEN, LaneOrder, down_frame
from local_worker.engine.messages import (
    DecodeRequest,
    Hidden,
    Ids,
    Logits,
    Ticket,
    failure_frame,
    rows_frame,
)
from local_worker.engine.ring import Ring
from local_worker.engine.role import Role
from local_worker.engine.scheduler import Scheduler
from local_worker.hidden_form import pack, unpack

MAX_REQUEST: Final = (1 << 32) - 1
MAX_LANES: Final = 256
MAX_EARLY_ROWS: Final = 4
"""Rows that may come before their orders; of more the oldest go, which nobody will ask for any more."""


@dataclass(slots=True)
class _Lane:
    """One lane. What comes over it stays in ``early`` until it is ordered, decoded ahead of that or not."""

    end: LaneEnd
    early: deque[LaneMessage] = field(default_factory=lambda: deque(maxlen=MAX_EARLY_ROWS))
    waiting: LaneOrder | None = None
    """An order whose row has not come."""
    newest: LaneOrder | None = None
    """The order before, which the next row comes behind."""


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A row that was decoded ahead of its order."""

    request: int
    sequence: int
    position: int
    token: int
    rows: Hidden | Logits
    """Its hidden state, which has gone on; or its logits [1, …]."""

    def is_ordered_by(self, order: LaneOrder) -> bool:
        """Whether this is the very row."""
        return (self.position, self.token) == (order.first_position, order.token)


class LaneDesk:
    """All lanes of an engine. No clock, and no I/O but the lanes' own."""

    def __init__(
        self, scheduler: Scheduler, n_embd: int, is_alone: Callable[[int], bool], role: Role
    ) -> None:
        """Prepare.

        Args:
            n_embd: numbers of a hidden state.
            is_alone: whether nobody but this sequence is about to ask for rows.
            role: says what comes over lanes: tokens to a first stage, hidden states to the others.
        """
        self._gives_hidden = role.gives_hidden
        self._taken_kinds = (KIND_F32, KIND_BF16) if role.takes_hidden else (KIND_TOKEN,)
        self._scheduler = scheduler
        self._n_embd = n_embd
        self._is_alone = is_alone
        self._lanes: dict[int, _Lane] = {}
        self._ring = Ring()
        self._ahead: _Ahead | None = None
        self._said: list[bytes] = []
        self._waker: select.poll | None = None
        self._numbers: dict[int, int] = {}
        """Of lanes, by descriptor."""
        scheduler.outlet = self

    def poll(self, connection: socket.socket, wait_s: float | None) -> list[tuple[int, int]]:
        """Wait for a connection or a lane: lanes that something happened to, and what (as of `select.poll`)."""
        if self._waker is None or any(lane.end.has_unsent for lane in self._lanes.values()):
            self._waker = self._made_waker(connection)
        events = self._waker.poll(None if wait_s is None else 1000 * wait_s)
        return [(self._numbers[one], what) for one, what in events if one in self._numbers]

    def _made_waker(self, connection: socket.socket) -> select.poll:
        waker = select.poll()
        waker.register(connection, select.POLLIN)
        self._numbers = {lane.end.fileno(): number for number, lane in self._lanes.items()}
        for descriptor, number in self._numbers.items():
            wants_room = self._lanes[number].end.has_unsent
            waker.register(descriptor, select.POLLIN | (select.POLLOUT if wants_room else 0))
        return waker

    @property
    def is_used(self) -> bool:
        """Whether there are any."""
        return bool(self._lanes)

    def said(self) -> list[bytes]:
        """Frames for the service that came up since the last call."""
        said, self._said = self._said, []
        return said

    def add(self, end: LaneEnd) -> None:
        """Take a lane on."""
        if len(self._lanes) >= MAX_LANES:
            end.close()
            self.refuse(end.number, f"{MAX_LANES} lanes stand already")
            return
        self._lanes[end.number] = _Lane(end)
        self._waker = None

    def refuse(self, number: int, reason: str) -> None:
        """A lane could not be taken on."""
        self._said.append(down_frame(number, reason, is_fault=False))

    def end(self, number: int) -> None:
        """The service gives a lane up."""
        if number in self._lanes:
            self._drop(number, LaneBroken("the service gave it up"))

    def hear(self, number: int) -> list[DecodeRequest]:
        """A lane has something to say: requests that can be decoded now."""
        lane = self._lanes.get(number)
        if lane is None:
            return []
        ready: list[DecodeRequest] = []
        try:
            was_up = lane.end.is_up
            messages = lane.end.receive()
            if lane.end.is_up and not was_up:
                self._said.append(frame(Kind.LANE_UP, number))
            for message in messages:
                ready += self._came(lane, message)
        except LaneBroken as error:
            self._drop(number, error)
        return ready

    def flush(self, number: int) -> None:
        """A lane takes bytes again."""
        lane = self._lanes.get(number)
        self._waker = None
        try:
            if lane is not None:
                lane.end.flush()
        except LaneBroken as error:
            self._drop(number, error)

    def order(self, order: LaneOrder) -> list[DecodeRequest]:
        """Take an order: its request, if it can be decoded now."""
        ticket = order.ticket
        lane = self._lanes.get(ticket.lane_in)
        if lane is None and order.token == NO_TOKEN:
            self._refuse(order, Failure.CANCELLED, "the lane that its row was to come over has ended")
            return []
        if ticket.lane_out in self._lanes:
            self._ring.asked(ticket.lane_out, ticket.request, order.first_position)
        ahead = self._ahead if self._ahead and self._ahead.sequence == order.sequence else None
        if ahead is not None:
            self._ahead = None
            if ahead.request == ticket.request and ahead.is_ordered_by(order):
                self._deliver(order, ahead)
                return self._behind(lane, order)
            self._scheduler.take_back_ahead(ahead.sequence, ahead.position)
            if ahead.request == ticket.request:
                self._refuse(
                    order, Failure.MISLED, "what came over the lane is another row than the client says"
                )
                return []
        if lane is None or order.token != NO_TOKEN:
            if lane is not None:
                lane.newest = order
            return [self._request(order, np.array([order.token], dtype=np.int32))]
        return self._await_row(lane, order)

    def _await_row(self, lane: _Lane, order: LaneOrder) -> list[DecodeRequest]:
        if lane.waiting is not None:
            self._refuse(lane.waiting, Failure.CANCELLED, "another order came")
        lane.waiting = lane.newest = order
        try:
            return self._match(lane)
        except LaneBroken as error:
            self._drop(lane.end.number, error)
            return []

    def _behind(self, lane: _Lane | None, order: LaneOrder) -> list[DecodeRequest]:
        """An order was met by what had been decoded ahead: the row behind it may have come meanwhile."""
        if lane is not None:
            lane.newest = order
            try:
                self._look_ahead(lane)
            except LaneBroken as error:
                self._drop(lane.end.number, error)
        return []

    def _deliver(self, order: LaneOrder, ahead: _Ahead) -> None:
        """Answer an order with what was decoded ahead."""
        position, end = order.first_position, order.first_position + 1
        self._scheduler.keep_ahead(order.sequence, end)
        if self._gives_hidden:
            self._said.append(hidden_frame(order.call, True, end, position, ahead.rows, sent=True))
            return
        self.logits(order.ticket, end, order.sequence, ahead.rows[0])
        try:
            output = self._scheduler.output_of(ahead.rows[0], position, order.top_k)
        except ArithmeticError as error:
            self._refuse(order, Failure.DECODE_FAILED, str(error))
            return
        self._said.append(rows_frame(order.call, True, end, [output]))

    @staticmethod
    def _request(order: LaneOrder, inputs: Ids | Hidden) -> DecodeRequest:
        return DecodeRequest(
            order.call, order.sequence, order.first_position, order.top_k, False, inputs, order.ticket
        )

    def _came(self, lane: _Lane, message: LaneMessage) -> list[DecodeRequest]:
        if lane.end.is_dialler or message.kind not in self._taken_kinds:
            raise LaneFault(f"a message of kind {message.kind} came that way")
        lane.early.append(message)
        if lane.waiting is not None:
            return self._match(lane)
        self._look_ahead(lane)
        return []

    def _match(self, lane: _Lane) -> list[DecodeRequest]:
        """The row of the order that waits, if it has come. Requests count up: what is for an earlier one is not wanted.

        Raises:
            LaneBroken: what came for it is not its row.
        """
        order = lane.waiting
        if order is None:
            return []
        message = self._first_from(lane, order.ticket.request)
        if message is None or message.request != order.ticket.request:
            return []
        lane.early.popleft()
        if message.position != order.first_position:
            raise LaneFault(f"row {message.position} came, row {order.first_position} was awaited")
        lane.waiting = None
        return [self._request(order, self._inputs(message))]

    @staticmethod
    def _first_from(lane: _Lane, request: int) -> LaneMessage | None:
        """The first that came for this request or a later one; what came for earlier ones goes."""
        while lane.early and lane.early[0].request < request:
            lane.early.popleft()
        return lane.early[0] if lane.early else None

    def _inputs(self, message: LaneMessage) -> Ids | Hidden:
        """What came, as the model takes it.

        Raises:
            LaneBroken: it does not.
        """
        try:
            if message.kind == KIND_TOKEN:
                return np.array([message.token], dtype=np.int64).astype(np.int32)
            return unpack(message.body, 1, self._n_embd, message.kind)
        except ChannelRefused as error:
            raise LaneFault(error.message) from error

    def _look_ahead(self, lane: _Lane) -> None:
        """Decode the row behind the newest order ahead of its own, where that keeps nobody waiting.

        Raises:
            LaneBroken: what came is no row.
        """
        newest = lane.newest
        if newest is None or self._scheduler.busy or not self._is_alone(newest.sequence):
            return
        request, position = newest.ticket.request + 1, newest.first_position + 1
        message = self._first_from(lane, request)
        if message is None or (message.request, message.position) != (request, position):
            return
        if self._ahead is not None:
            if self._ahead.sequence == newest.sequence:
                return
            self.others(self._ahead.sequence)
        rows = self._scheduler.decode_ahead(newest.sequence, position, self._inputs(message))
        if rows is None:
            return
        ticket = Ticket(request, 0, newest.ticket.lane_out)
        if self._gives_hidden and not self.row(ticket, position, rows):
            self._scheduler.take_back_ahead(newest.sequence, position)
            return
        token = message.token if message.kind == KIND_TOKEN else NO_TOKEN
        self._ahead = _Ahead(request, newest.sequence, position, token, rows)

    # --- what the scheduler tells

    def row(self, ticket: Ticket, position: int, rows: Hidden) -> bool:
        """A row is ready to go on: whether it went."""
        lane = self._lanes.get(ticket.lane_out)
        if lane is None or not lane.end.is_up or not lane.end.is_dialler or len(rows) != 1:
            return False
        return self._send(lane.end, lane.end.form, ticket.request, position, pack(rows, lane.end.form))

    def logits(self, ticket: Ticket, position: int, sequence: int, row: Logits) -> None:
        """The logits of the token at ``position`` are known: the first stage may be told the likeliest."""
        lane = self._lanes.get(ticket.lane_out)
        if lane is None or not lane.end.is_up or not lane.end.is_dialler or not self._is_alone(sequence):
            return
        if ticket.request < MAX_REQUEST and self._ring.tells(ticket.lane_out):
            likeliest = int(row.argmax())
            self._send(lane.end, KIND_TOKEN, ticket.request + 1, position, token_body(likeliest))

    def _send(self, end: LaneEnd, kind: int, request: int, position: int, body: bytes) -> bool:
        try:
            end.send(kind, request, position, body)
        except LaneBroken as error:
            self._drop(end.number, error)
            return False
        return True

    # --- what ends

    def others(self, sequence: int) -> None:
        """A request that goes over no lane came for a sequence: what was computed ahead there is void."""
        if self._ahead is not None and self._ahead.sequence == sequence:
            self._scheduler.take_back_ahead(sequence, self._ahead.position)
            self._ahead = None

    def cancel(self, call: int) -> bool:
        """Give up an order whose row has not come; False where there is none."""
        for lane in self._lanes.values():
            if lane.waiting is not None and lane.waiting.call == call:
                order, lane.waiting = lane.waiting, None
                self._refuse(order, Failure.CANCELLED, "cancelled before its row came")
                return True
        return False

    def forget(self, sequence: int) -> None:
        """A sequence is to serve another session."""
        self.others(sequence)
        for lane in self._lanes.values():
            if lane.newest is not None and lane.newest.sequence == sequence:
                lane.newest = None
            if lane.waiting is not None and lane.waiting.sequence == sequence:
                self.cancel(lane.waiting.call)

    def _drop(self, number: int, error: LaneBroken) -> None:
        lane = self._lanes.pop(number)
        lane.end.close()
        self._waker = None
        self._ring.forget(number)
        is_fault = isinstance(error, LaneFault)
        if lane.waiting is not None:
            failure = Failure.MISLED if is_fault else Failure.CANCELLED
            self._refuse(lane.waiting, failure, f"the lane ended: {error}")
        self._said.append(down_frame(number, str(error), is_fault=is_fault))

    def _refuse(self, order: LaneOrder, failure: Failure, words: str) -> None:
        held = self._scheduler.held_rows(order.sequence)
        self._said.append(failure_frame(order.call, failure, words, held))
