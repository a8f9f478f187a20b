"""How many threads compute a batch: few for tokens, as many as there are cores for prompts, unless that is slower.

A token is bound by memory, which few threads exhaust; rows that go in slices are bound by arithmetic, and take half as
long on twice the cores. Threads wait for each other by spinning, though: where somebody else needs one of the cores,
all of them wait for it. That cannot be known beforehand and changes, so it is measured. What is computed is the same
to the bit.
"""

from __future__ import annotations

from collections import deque
from statistics import median_low
from typing import Final

from local_worker.engine.scheduler import SHORT_ROWS

STEADY_SLICES: Final = 8
"""After so many slices the other number of threads is tried: the machine may be busier or idler by now."""
MEMORY_SLICES: Final = 3
"""A number of threads is as fast as the median of so many slices: one that was held up says nothing."""


class ThreadChoice:
    """Remembers how long a row of a slice took with either number of threads."""

    def __init__(self, few: int, many: int) -> None:
        """``few``: for tokens; ``many``: all that may be had."""
        self._few = few
        self._many = many
        self._row_s: dict[int, deque[float]] = {
            threads: deque(maxlen=MEMORY_SLICES) for threads in (few, many)
        }
        self._idle_slices = dict.fromkeys(self._row_s, 0)

    def of(self, rows: int) -> int:
        """Threads for a batch of so many rows."""
        if rows <= SHORT_ROWS:
            return self._few
        for threads, slices in self._idle_slices.items():
            if slices >= STEADY_SLICES:
                return threads
        measured = {threads: median_low(row_s) for threads, row_s in self._row_s.items() if row_s}
        return min(measured, key=measured.__getitem__, default=self._many)

    def took(self, threads: int, rows: int, seconds: float) -> None:
        """A batch of so many rows was computed."""
        if rows <= SHORT_ROWS:
            return
        for other in self._idle_slices:
            self._idle_slices[other] += 1
        self._idle_slices[threads] = 0
        self._row_s[threads].append(seconds / rows)
