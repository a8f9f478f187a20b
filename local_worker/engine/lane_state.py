"""What a desk knows of each lane, and of the row that is one ahead."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from dllm_protocol.lane import LaneMessage
from local_worker.engine.lane_end import LaneEnd
from local_worker.engine.lane_frames import NO_TOKEN, LaneOrder
from local_worker.engine.messages import Hidden, Logits

MAX_EARLY_ROWS: Final = 4
"""Rows that may come before their orders; of more the oldest go, which nobody will ask for any more."""

MAX_UNORDERED: Final = 64
"""Messages from one order to the next: who sends more keeps the engine busy for nothing."""


@dataclass(slots=True)
class LaneState:
    """One lane. What comes over it stays in ``early`` until it is ordered, decoded ahead of that or not."""

    end: LaneEnd
    early: deque[LaneMessage] = field(default_factory=lambda: deque(maxlen=MAX_EARLY_ROWS))
    unordered: int = 0
    """Messages since the newest order."""
    waiting: LaneOrder | None = None
    """An order whose row has not come."""
    newest: LaneOrder | None = None
    """The order before, which the next row comes behind."""
    tried: int = 0
    """Request whose row was tried to be decoded ahead last: once is enough."""
    handed: tuple[int, int, int] = (0, 0, NO_TOKEN)
    """Request, position and token of the row that was handed on ahead of its order last."""

    def first_from(self, request: int) -> LaneMessage | None:
        """The first that came for this request or a later one; what came for earlier ones goes."""
        while self.early and self.early[0].request < request:
            self.early.popleft()
        return self.early[0] if self.early else None

    def is_contradicted_by(self, order: LaneOrder) -> bool:
        """Whether another row has been handed on under the order's number."""
        request, *row = self.handed
        return request == order.ticket.request and row != [order.first_position, order.token]


@dataclass(frozen=True, slots=True)
class Ahead:
    """A row that was decoded ahead of its order."""

    request: int
    sequence: int
    position: int
    token: int
    rows: Hidden | Logits
    """Its hidden state, which has gone on; or its logits [1, …]."""

    def is_ordered_by(self, order: LaneOrder) -> bool:
        """Whether this is the very row."""
        wanted = (order.ticket.request, order.first_position, order.token)
        return (self.request, self.position, self.token) == wanted
