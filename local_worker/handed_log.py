"""What went to the next stage, kept as it went: a provider that takes that stage over gets the same bytes again.

So a stage that dies costs its successor one replay, and nobody else a computation. Memory is bounded for all sessions
together; whoever's log had to go has its rows computed anew.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

RESENDS_MAX: Final = 4
"""So many times as many rows as ever went may go out again: it costs the client nothing, and the uplink much."""


@dataclass(slots=True)
class _Segment:
    """Consecutive rows that went in one piece."""

    first_position: int
    rows: int
    form: int
    data: bytes

    @property
    def end(self) -> int:
        return self.first_position + self.rows

    def part(self, first: int, end: int) -> _Segment:
        """Rows first..end-1 of it, as far as it has them."""
        first, end = max(first, self.first_position), min(end, self.end)
        row_bytes = len(self.data) // self.rows
        low = (first - self.first_position) * row_bytes
        return _Segment(first, end - first, self.form, self.data[low : low + (end - first) * row_bytes])


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows that may go out again."""

    first_position: int
    rows: int
    form: int
    data: bytes


@dataclass(slots=True)
class _Log:
    """One session's rows."""

    segments: list[_Segment] = field(default_factory=list)
    noted_rows: int = 0
    """Rows that ever went out."""
    resent_rows: int = 0
    """Rows that went out again."""


class HandedLogs:
    """The logs of all sessions of an engine."""

    def __init__(self, limit_bytes: int) -> None:
        """``limit_bytes``: of all together."""
        self._limit_bytes = limit_bytes
        self._logs: OrderedDict[bytes, _Log] = OrderedDict()  # the one used longest ago first
        self.held_bytes = 0

    def note(self, session: bytes, first_position: int, rows: int, form: int, data: bytes) -> None:
        """These rows went out; what was noted of their positions and behind is void."""
        self.cut(session, first_position)
        log = self._logs.setdefault(session, _Log())
        self._logs.move_to_end(session)
        log.segments.append(_Segment(first_position, rows, form, data))
        log.noted_rows += rows
        self.held_bytes += len(data)
        while self.held_bytes > self._limit_bytes and self._logs:
            self.drop(next(iter(self._logs)))

    def cut(self, session: bytes, rows: int) -> None:
        """Keep the first ``rows`` positions only."""
        log = self._logs.get(session, _Log()).segments
        while log and log[-1].end > rows:
            last = log.pop()
            self.held_bytes -= len(last.data)
            if last.first_position < rows:
                kept = last.part(last.first_position, rows)
                log.append(kept)
                self.held_bytes += len(kept.data)

    def kept(self, session: bytes, first_position: int, rows: int) -> list[Kept] | None:
        """Exactly these rows, in order, to go out again.

        None where some are not kept any more, or where rows went out again too often: they can be computed anew.
        """
        of_session = self._logs.get(session, _Log())
        log = of_session.segments
        if of_session.resent_rows + rows > RESENDS_MAX * of_session.noted_rows:
            return None
        end = first_position + rows
        index = max(0, bisect_right(log, first_position, key=lambda one: one.first_position) - 1)
        found: list[Kept] = []
        at = first_position
        for segment in log[index:]:
            if segment.first_position > at or at >= end:
                break
            if segment.end > at:
                part = segment.part(at, end)
                found.append(Kept(part.first_position, part.rows, part.form, part.data))
                at += part.rows
        if at != end:
            return None
        of_session.resent_rows += rows
        return found

    def drop(self, session: bytes) -> None:
        """Forget a session's rows."""
        for segment in self._logs.pop(session, _Log()).segments:
            self.held_bytes -= len(segment.data)
