"""Which of the rows that wait are computed next, and whether that is put off for rows that are about to come.

A batch costs hardly more with a few rows more: what it costs at least is reading every matrix once. So rows of
neighbouring sequences, which llama.cpp computes in one go, should be there at the same time. Where a model lies on
several machines, not all of them should: while one stage has some, the others would have none. So the sessions that
are in the middle of an answer are cut into as many groups as there are stages, and each group keeps together.

A group's rows were answered in one batch and come almost together, but each in a frame of its own; some lag behind.
How long a session stays away between an answer and its next row is much the same from row to row, also where the row
goes over other stages: so it is known who is about to come. Who waits for a neighbour waits once; from then on both
come together. While other rows can be computed meanwhile, waiting costs the engine nothing, and may take longer than
where the engine would do nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

IDLE_BATCHES: Final = 2.0
"""So many times what the cheapest batch takes, the engine does nothing for a neighbour's sake. It wins less than one
batch by that, but in every round from then on; with less patience, groups often stay apart."""
BUSY_BATCHES: Final = 4.0
"""So many times, where others can go first."""
MAX_HOLD_S: Final = 0.5
PAUSE_S: Final = 0.002
"""Between the frames of rows that come together."""
PAUSE_BATCHES: Final = 0.25
"""A pause is no longer than this, either."""
REMEMBERED_BATCHES: Final = 16
ABSENCES: Final = 2.0
"""Whoever stays away so many times as long as the last time has stopped asking, as far as can be told."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What to do now.

    Attributes:
        sequences: whose rows are computed together, the one that waits longest first; empty: nobody's yet.
        wait_s: then how long to wait for another row at most, before asking again.
    """

    sequences: tuple[int, ...]
    wait_s: float = 0.0


class Gathering:
    """Knows of each sequence when it asked, when it was answered and how long it stayed away the last time."""

    def __init__(self, clock_s: Callable[[], float], stages: int = 1) -> None:
        """
        Args:
            clock_s: monotonic seconds.
            stages: about how many machines a row passes; 1 where this one has the whole model. May change.
        """
        self._clock_s = clock_s
        self.stages = stages
        self._came_s = 0.0
        self._asked_s: dict[int, float] = {}
        self._answered_s: dict[int, float] = {}
        self._away_s: dict[int, float] = {}
        self._batches_s: deque[float] = deque(maxlen=REMEMBERED_BATCHES)

    @property
    def is_alone(self) -> bool:
        """Whether nobody who was answered has not asked again."""
        return not self._answered_s

    def is_alone_but(self, sequence: int) -> bool:
        """Whether nobody else is about to ask."""
        now_s = self._clock_s()
        return not any(one != sequence and self._is_about(one, now_s) for one in self._answered_s)

    def asked(self, sequence: int) -> None:
        """A request of this sequence came."""
        now_s = self._came_s = self._asked_s[sequence] = self._clock_s()
        answered_s = self._answered_s.pop(sequence, None)
        if answered_s is not None:
            self._away_s[sequence] = now_s - answered_s

    def answered(self, sequences: Collection[int], batch_s: float) -> None:
        """These got their answers just now, out of a batch of short jobs that took so long."""
        now_s = self._clock_s()
        self._batches_s.append(batch_s)
        for sequence in sequences:
            self._answered_s[sequence] = now_s

    def met(self, sequence: int) -> None:
        """A request of this sequence came and was answered at once, out of no batch."""
        self.asked(sequence)
        self._answered_s[sequence] = self._clock_s()

    def forget(self, sequence: int) -> None:
        """This sequence serves another session from now on."""
        self._answered_s.pop(sequence, None)
        self._away_s.pop(sequence, None)

    def choose(self, waiting: Sequence[int]) -> Choice:
        """What to compute next, or how long to wait.

        Args:
            waiting: sequences whose rows can be computed, the one that waits longest first; at least one.
        """
        now_s = self._clock_s()
        about = {one for one in self._answered_s if self._is_about(one, now_s)}
        active = sorted(about.union(waiting))
        groups = groups_of(active, self.stages)
        here = [tuple(one for one in waiting if one in group) for group in groups]
        coming = dict(
            zip(here, (about.difference(waiting).intersection(group) for group in groups), strict=True)
        )
        ready = sorted(filter(None, here), key=lambda one: waiting.index(one[0]))
        if len(ready) > 1:
            for group in ready:
                if not self._left_s(group, coming[group], now_s, BUSY_BATCHES):
                    return Choice(group)
        left_s = [self._left_s(group, coming[group], now_s, IDLE_BATCHES) for group in ready]
        return Choice((), min(left_s)) if all(left_s) else Choice(ready[left_s.index(0.0)])

    def _is_about(self, sequence: int, now_s: float) -> bool:
        """Whether a sequence that was answered is about to ask again, sooner or later."""
        away_s = self._away_s.get(sequence)
        return away_s is not None and now_s - self._answered_s[sequence] <= ABSENCES * away_s

    def _left_s(self, group: Sequence[int], coming: Collection[int], now_s: float, batches: float) -> float:
        """How much longer a group's rows wait for others of it; 0: they do not.

        Args:
            group: those of it that are here, the oldest first.
            coming: those that will be.
            batches: so many times what the cheapest batch takes, the oldest may wait in all.
        """
        if not coming:
            return 0.0
        cheapest_s = min(self._batches_s, default=0.0)
        pause_s = self._came_s + min(PAUSE_S, PAUSE_BATCHES * cheapest_s) - now_s
        if pause_s > 0:
            return pause_s
        hold_s = self._asked_s[group[0]] + min(MAX_HOLD_S, batches * cheapest_s) - now_s
        return hold_s if hold_s > 0 and any(self._is_due(one, now_s, hold_s) for one in coming) else 0.0

    def _is_due(self, sequence: int, now_s: float, hold_s: float) -> bool:
        """Whether a sequence will be here within the time, or should have been not long ago."""
        late_s = now_s - self._answered_s[sequence] - self._away_s[sequence]
        return abs(late_s) <= hold_s


def groups_of(active: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Cut sequences, in ascending order, into groups of neighbours, as even as can be.

    Args:
        count: so many groups, if all are neighbours; where numbers are missing there are more.
    """
    bounds = {round(number * len(active) / count) for number in range(count)}
    groups: list[list[int]] = []
    for index, one in enumerate(active):
        if index in bounds or groups[-1][-1] != one - 1:
            groups.append([])
        groups[-1].append(one)
    return [tuple(group) for group in groups]
