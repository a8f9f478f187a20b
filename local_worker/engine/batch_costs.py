"""Is a row cheaper in a batch with others, or on its own?

Mostly in a batch, which reads every matrix once for all of its rows. But that is no law: on some processors llama.cpp
multiplies by one row so much better than by three that rows one after the other are done sooner. So both are measured,
and whichever seems dearer is tried again now and then, for what else the machine does changes it.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

REMEMBERED: Final = 9
ENOUGH: Final = 3
"""So many batches of either kind say something."""
CLEARLY: Final = 0.95
"""Rows go alone where that costs less than this part of what they cost together: else fewer computations are better."""
TRIED_EVERY: Final = 96
"""Choices from one try of the dearer kind to the next."""


class BatchCosts:
    """Seconds a row, alone and in company."""

    def __init__(self) -> None:
        self._alone_s: deque[float] = deque(maxlen=REMEMBERED)
        self._shared_s: deque[float] = deque(maxlen=REMEMBERED)
        self._choices = 0

    def took(self, rows: int, seconds: float) -> None:
        """A batch of so many sequences, a row of each, took so long."""
        (self._alone_s if rows == 1 else self._shared_s).append(seconds / rows)

    def wants_one(self) -> bool:
        """Whether of several rows that wait only the first is to be computed now."""
        self._choices += 1
        tries_other = self._choices % TRIED_EVERY == 0
        if len(self._shared_s) < ENOUGH:
            return False
        if len(self._alone_s) < ENOUGH:
            return tries_other
        return (median(self._alone_s) < CLEARLY * median(self._shared_s)) != tries_other
