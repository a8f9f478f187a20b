"""Which stage of a line holds the others up: pure, measured times in, a judgement out.

A stage is slow where its rows take several times as long as they did in its own best time in this answer, or as a layer
takes at the other stages; and long enough that a person notices. Whether another provider would be faster is not known:
so nobody is replaced for a little.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Final

from dllm_protocol.session.ledger import WINDOW_KEPT_ROWS

SLOW_FACTOR: Final = 4.0
SLOW_S: Final = 0.25
"""A stage that takes less for a row is never slow."""
FAR_S: Final = 1.0
"""Nobody on earth is farther away; whoever answers a ping later is slow."""
MEMORY_ROWS: Final = 8
"""Rows that a stage's pace is the median of: one row that was held up says nothing."""


class Pace:
    """How long each stage takes for a row."""

    def __init__(self, layers: Sequence[int]) -> None:
        """``layers``: how many each stage has."""
        self._layers = tuple(layers)
        self._recent: list[deque[float]] = [deque(maxlen=MEMORY_ROWS) for _ in layers]
        self._best: list[float | None] = [None for _ in layers]
        self._window = 0

    def note(self, stage: int, seconds: float) -> None:
        """A stage had a row for so long."""
        recent = self._recent[stage]
        recent.append(seconds)
        if len(recent) == MEMORY_ROWS:
            now = median(recent)
            best = self._best[stage]
            self._best[stage] = now if best is None else min(best, now)

    def note_row(self, told_s: Sequence[float]) -> None:
        """Every stage had a row.

        A row goes from engine to engine, ahead of what services say of it: the word of a stage may come later than that
        of one behind it, which cannot have had the row before it was handed on.

        Args:
            told_s: seconds from when it was asked for to when each stage said that it is done.
        """
        taken_s, all_told_s = 0.0, told_s[-1]
        for stage, own_s in enumerate(told_s):
            handed_on_s = min(told_s[stage:])
            # Behind the answer nobody has the row any more: a stage that is not done then keeps the next one waiting.
            late_s = max(0.0, own_s - all_told_s)
            self.note(stage, handed_on_s - taken_s + late_s)
            taken_s, all_told_s = handed_on_s, max(all_told_s, own_s)

    def is_due(self, rows: int) -> bool:
        """Whether rows have come to another window than when this was asked before: time to judge."""
        window, before = rows // WINDOW_KEPT_ROWS, self._window
        self._window = window
        return window != before

    def slow_stages(self, round_trip_s: float = 0.0) -> list[int]:
        """Those that hold the others up, the slowest first.

        Args:
            round_trip_s: the longest known between two who speak with each other: it may be in what a stage seems to
                take, and nobody is slow for it, up to `FAR_S`.
        """
        least_s = SLOW_S + min(round_trip_s, FAR_S)
        paces = [median(one) if len(one) == MEMORY_ROWS else None for one in self._recent]
        found = [
            (pace, stage)
            for stage, pace in enumerate(paces)
            if pace is not None and pace > least_s and pace > SLOW_FACTOR * self._usual(stage, paces)
        ]
        return [stage for _, stage in sorted(found, reverse=True)]

    def _usual(self, stage: int, paces: Sequence[float | None]) -> float:
        """What a row should take: the stage's own best, or what the other stages take for as many layers."""
        others = [
            pace / self._layers[other] * self._layers[stage]
            for other, pace in enumerate(paces)
            if pace is not None and other != stage
        ]
        best = self._best[stage]
        known = ([best] if best is not None else []) + ([median(others)] if others else [])
        return min(known, default=float("inf"))
