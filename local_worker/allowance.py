"""How much of something unpaid a stranger gets: a burst, and so much a second (a token bucket)."""

from __future__ import annotations

import time
from collections.abc import Callable


class Allowance:
    """So many units at once; what was used comes back at a rate."""

    def __init__(self, burst: int, per_second: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._per_second = per_second
        self._clock_s = clock_s
        self._left = float(burst)
        self._counted_s = clock_s()

    def take(self, units: int) -> bool:
        """Use so many units if they are there; nothing is used where they are not."""
        now_s = self._clock_s()
        self._left = min(self._burst, self._left + (now_s - self._counted_s) * self._per_second)
        self._counted_s = now_s
        if units > self._left:
            return False
        self._left -= units
        return True
