"""How long CometBFT must keep blocks, worked out from heights and times that were noted on the way.

Evidence is judged against the block of its height, and it expires only when it is older than the evidence age both
in time and in blocks. A node that had dropped such a block would call good evidence bad and fall out of consensus.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MARKS_PER_AGE = 32
"""Marks are set at least so far apart that an evidence age holds this many."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What may be dropped.

    Attributes:
        window: how many blocks the operator wants to keep; 0 keeps all.
        age_blocks: evidence age in blocks.
        age_ns: evidence age in nanoseconds of block time.
        marks: some heights with their block times in nanoseconds, ascending.
        time_ns: block time of the newest block.
    """

    window: int
    age_blocks: int
    age_ns: int
    marks: tuple[tuple[int, int], ...] = ()
    time_ns: int = 0

    def after(self, height: int, time_ns: int) -> Retention:
        """The same, one block later. Marks that are not needed any more are gone."""
        marks = self.marks
        if not marks or time_ns - marks[-1][1] >= self.age_ns // MARKS_PER_AGE:
            marks = (*marks, (height, time_ns))
        # The newest of those that are old enough is the bound; what lies before it says nothing more.
        old = [mark for mark in marks if mark[1] < time_ns - self.age_ns]
        return replace(self, marks=(*old[-1:], *marks[len(old) :]), time_ns=time_ns)

    def retain_height(self, height: int) -> int:
        """The lowest height to keep after this block; 0 keeps all."""
        if not self.window or not self.marks:
            return 0
        by_count = height - max(self.window, self.age_blocks) + 1
        oldest, marked_ns = self.marks[0]
        by_age = oldest if marked_ns < self.time_ns - self.age_ns else 0
        return max(0, min(by_count, by_age))
