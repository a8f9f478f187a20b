"""Frames about lanes: a connection that the engine is to take over, a row that goes over it, and how a lane fares."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from dllm_protocol.messages import FORM_BF16, FORM_F32
from local_worker.engine.frames import FrameRefused, Kind, frame
from local_worker.engine.messages import Ticket

NO_TOKEN: Final = -1
_ROW = struct.Struct("<IIHIIIi")
_LANE = struct.Struct("<BB")


@dataclass(frozen=True, slots=True)
class LaneOrder:
    """Decode one row at ``first_position`` of ``sequence``: ``token``, or a hidden state that comes over a lane."""

    call: int
    sequence: int
    first_position: int
    top_k: int
    ticket: Ticket
    token: int = NO_TOKEN


@dataclass(frozen=True, slots=True)
class NewLane:
    """A connection for the engine: whether it was dialled here, and the state of its sealed stream."""

    number: int
    form: int
    is_dialler: bool
    state: bytes


def order_frame(order: LaneOrder, call: int) -> bytes:
    """The frame of a row's order, under the number ``call``."""
    ticket = order.ticket
    numbers = (ticket.request, ticket.lane_in, ticket.lane_out, order.token)
    return frame(Kind.LANE_ROW, call, _ROW.pack(order.sequence, order.first_position, order.top_k, *numbers))


def read_order(call: int, body: bytes) -> LaneOrder:
    """Parse an order; whether its numbers mean anything is checked by who knows them.

    Raises:
        FrameRefused: another size.
    """
    if len(body) != _ROW.size:
        raise FrameRefused(f"an order for a lane's row of {len(body)} bytes, not {_ROW.size}")
    sequence, first_position, top_k, request, lane_in, lane_out, token = _ROW.unpack(body)
    return LaneOrder(call, sequence, first_position, top_k, Ticket(request, lane_in, lane_out), token)


def lane_frame(lane: NewLane) -> bytes:
    """The frame that goes with a connection."""
    return frame(Kind.LANE, lane.number, _LANE.pack(lane.form, lane.is_dialler) + lane.state)


def read_lane(number: int, body: bytes) -> NewLane:
    """Parse it.

    Raises:
        FrameRefused: a truth value that is none, or too few bytes.
    """
    if len(body) < _LANE.size or body[0] not in (FORM_F32, FORM_BF16) or body[1] > 1:
        raise FrameRefused(f"a lane's frame of {len(body)} bytes makes no sense")
    form, is_dialler = _LANE.unpack_from(body)
    return NewLane(number, form, bool(is_dialler), body[_LANE.size :])


def down_frame(number: int, reason: str, *, is_fault: bool) -> bytes:
    """The frame that says that a lane has ended, and whether by what the other side sent."""
    return frame(Kind.LANE_DOWN, number, bytes([is_fault]) + reason.encode()[:300])


def read_down(body: bytes) -> tuple[str, bool]:
    """Parse it: why, and whether the other side is to blame.

    Raises:
        FrameRefused: a truth value that is none.
    """
    if not body or body[0] > 1:
        raise FrameRefused(f"a lane's end of {len(body)} bytes makes no sense")
    return body[1:].decode(errors="replace"), bool(body[0])
