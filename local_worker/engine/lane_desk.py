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
from collections.abc import Callable
from typing import Final

import numpy as np

from dllm_protocol.errors import ChannelRefused
from dllm_protocol.lane import KIND_BF16, KIND_F32, KIND_TOKEN, LaneMessage, token_body
from local_worker.engine.frames import Failure, FrameRefused, Kind, frame
from local_worker.engine.hidden import hidden_frame
from local_worker.engine.lane_end import LaneBroken, LaneEnd, LaneFault
from local_worker.engine.lane_frames import NO_TOKEN, LaneOrder, down_frame
from local_worker.engine.lane_state import MAX_UNORDERED, Ahead, LaneState
from local_worker.engine.messages import (
    MAX_TOP_K,
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
        self._lanes: dict[int, LaneState] = {}
        self._ring = Ring()
        self._heard = Ring(least=0)
        self._ahead: Ahead | None = None
        self.is_met = False
        """Whether the newest order was answered with a row that had been decoded ahead."""
        self.has_changed = False
        """Whether lanes came or went; for whoever sets it back."""
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
    def is_local(self) -> bool:
        """Whether all the engines that lanes lead to are on this machine."""
        return bool(self._lanes) and all(lane.end.is_local for lane in self._lanes.values())

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
        self._lanes[end.number] = LaneState(end)
        self._waker = None
        self.has_changed = True

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
        """Take an order: its request, if it can be decoded now; `is_met` says whether that is not needed.

        Raises:
            FrameRefused: no such sequence, or a number of logits out of bounds.
        """
        self.is_met = False
        if order.sequence >= self._scheduler.sequences or not 1 <= order.top_k <= MAX_TOP_K:
            raise FrameRefused(f"an order for {order.top_k} logits of sequence {order.sequence}")
        ticket = order.ticket
        lane = self._lanes.get(ticket.lane_in)
        if lane is not None:
            lane.unordered = 0
        if lane is None and order.token == NO_TOKEN:
            self._refuse(order, Failure.CANCELLED, "the lane that its row was to come over has ended")
            return []
        if ticket.lane_out in self._lanes:
            self._ring.asked(ticket.lane_out, ticket.request, order.first_position)
        self._heard.asked(ticket.lane_in, ticket.request, order.first_position)
        if self._meet(order):
            self.is_met = True
            if lane is not None:
                lane.newest = order
            return []
        if lane is not None and lane.is_contradicted_by(order):
            lane.newest = None
            lane.first_from(ticket.request + 1)
            self._refuse(order, Failure.MISLED, "what came over the lane is another row than the client says")
            return []
        if lane is None or order.token != NO_TOKEN:
            if lane is not None:
                lane.newest = order
            return [self._request(order, np.array([order.token], dtype=np.int32))]
        return self._await_row(lane, order)

    def _meet(self, order: LaneOrder) -> bool:
        """Answer an order with the row that was decoded ahead, if it is that one; another one is taken back."""
        ahead = self._ahead
        if ahead is None or ahead.sequence != order.sequence:
            return False
        self._ahead = None
        if ahead.is_ordered_by(order):
            self._deliver(order, ahead)
            return True
        self._scheduler.take_back_ahead(ahead.sequence, ahead.position)
        return False

    def go_on(self, order: LaneOrder) -> None:
        """Once an order's answer is told: the row behind it may have come meanwhile."""
        lane = self._lanes.get(order.ticket.lane_in)
        if lane is None or lane.newest is not order:
            return
        try:
            self._look_ahead(lane)
        except LaneBroken as error:
            self._drop(lane.end.number, error)

    def _await_row(self, lane: LaneState, order: LaneOrder) -> list[DecodeRequest]:
        if lane.waiting is not None:
            self._refuse(lane.waiting, Failure.CANCELLED, "another order came")
        lane.waiting = lane.newest = order
        try:
            return self._match(lane)
        except LaneBroken as error:
            self._drop(lane.end.number, error)
            return []

    def _deliver(self, order: LaneOrder, ahead: Ahead) -> None:
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

    def _came(self, lane: LaneState, message: LaneMessage) -> list[DecodeRequest]:
        if lane.end.is_dialler or message.kind not in self._taken_kinds:
            raise LaneFault(f"a message of kind {message.kind} came that way")
        if len(message.body) > 4 * self._n_embd:
            raise LaneFault(
                f"a row of {len(message.body)} bytes came, the model's have {4 * self._n_embd} at most"
            )
        lane.unordered += 1
        if lane.unordered > MAX_UNORDERED:
            raise LaneFault(f"{MAX_UNORDERED} messages came that nobody had ordered")
        lane.early.append(message)
        if lane.waiting is not None:
            return self._match(lane)
        self._look_ahead(lane)
        return []

    def _match(self, lane: LaneState) -> list[DecodeRequest]:
        """The row of the order that waits, if it has come. Requests count up: what is for an earlier one is not wanted.

        Raises:
            LaneBroken: what came for it is not its row.
        """
        order = lane.waiting
        if order is None:
            return []
        message = lane.first_from(order.ticket.request)
        if message is None or message.request != order.ticket.request:
            return []
        lane.early.popleft()
        if message.position != order.first_position:
            raise LaneFault(f"row {message.position} came, row {order.first_position} was awaited")
        inputs = self._inputs(message)
        lane.waiting = None
        return [self._request(order, inputs)]

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

    def _look_ahead(self, lane: LaneState) -> None:
        """Decode the row behind the newest order ahead of its own, where that keeps nobody waiting.

        Raises:
            LaneBroken: what came is no row.
        """
        newest = lane.newest
        if newest is None or self._scheduler.busy or not self._is_alone(newest.sequence):
            return
        request, position = newest.ticket.request + 1, newest.first_position + 1
        message = lane.first_from(request)
        if message is None or (message.request, message.position) != (request, position):
            return
        if self._ahead is not None:
            if self._ahead.sequence == newest.sequence:
                return
            self.others(self._ahead.sequence)
        inputs, ticket = self._inputs(message), Ticket(request, 0, newest.ticket.lane_out)
        if self._gives_hidden and self._way_out(ticket) is None:
            return
        if lane.tried == request or not self._heard.tells(lane.end.number):
            return
        lane.tried = request
        rows = self._scheduler.decode_ahead(newest.sequence, position, inputs)
        if rows is None:
            return
        if self._gives_hidden and not self.row(ticket, position, rows):
            self._scheduler.take_back_ahead(newest.sequence, position)
            return
        token = message.token if message.kind == KIND_TOKEN else NO_TOKEN
        lane.handed = (request, position, token)
        self._ahead = Ahead(request, newest.sequence, position, token, rows)

    # --- what the scheduler tells

    def row(self, ticket: Ticket, position: int, rows: Hidden) -> bool:
        """A row is ready to go on: whether it went."""
        out = self._way_out(ticket)
        if out is None or len(rows) != 1:
            return False
        return self._send(out, out.form, ticket.request, position, pack(rows, out.form))

    def logits(self, ticket: Ticket, position: int, sequence: int, row: Logits) -> None:
        """The logits of the token at ``position`` are known: the first stage may be told the likeliest."""
        out = self._way_out(ticket)
        if out is None or not self._is_alone(sequence):
            return
        if ticket.request < MAX_REQUEST and self._ring.tells(ticket.lane_out):
            likeliest = int(row.argmax())
            self._send(out, KIND_TOKEN, ticket.request + 1, position, token_body(likeliest))

    def _way_out(self, ticket: Ticket) -> LaneEnd | None:
        """The lane that a row may go out over now."""
        lane = self._lanes.get(ticket.lane_out)
        return lane.end if lane is not None and lane.end.is_up and lane.end.is_dialler else None

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
        self._heard.forget(number)
        self.has_changed = True
        is_fault = isinstance(error, LaneFault)
        # The service has to know that the lane is gone before it hears what became of an order.
        self._said.append(down_frame(number, str(error), is_fault=is_fault))
        if lane.waiting is not None:
            failure = Failure.MISLED if is_fault else Failure.CANCELLED
            self._refuse(lane.waiting, failure, f"the lane ended: {error}")

    def _refuse(self, order: LaneOrder, failure: Failure, words: str) -> None:
        held = self._scheduler.held_rows(order.sequence)
        self._said.append(failure_frame(order.call, failure, words, held))
