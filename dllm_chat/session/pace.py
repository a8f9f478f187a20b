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

SLOW_FACTOR: Final = 4.0
SLOW_S: Final = 0.25
"""A stage that takes less for a row is never slow."""
MEMORY_ROWS: Final = 8
"""Rows that a stage's pace is the median of: one row that was held up says nothing."""


class Pace:
    """How long each stage takes for a row."""

    def __init__(self, layers: Sequence[int]) -> None:
        """``layers``: how many each stage has."""
        self._layers = tuple(layers)
        self._recent: list[deque[float]] = [deque(maxlen=MEMORY_ROWS) for _ in layers]
        self._best: list[float | None] = [None for _ in layers]

    def note(self, stage: int, seconds: float) -> None:
        """A stage had a row for so long."""
        recent = self._recent[stage]
        recent.append(seconds)
        if len(recent) == MEMORY_ROWS:
            now = median(recent)
            best = self._best[stage]
            self._best[stage] = now if best is None else min(best, now)

    def slow_stages(self) -> list[int]:
        """Those that hold the others up, the slowest first."""
        paces = [median(one) if len(one) == MEMORY_ROWS else None for one in self._recent]
        found = [
            (pace, stage)
            for stage, pace in enumerate(paces)
            if pace is not None and pace > SLOW_S and pace > SLOW_FACTOR * self._usual(stage, paces)
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
