"""The time that a single validator votes with: the machine's, but it goes on where the machine's is set back.

Block times must rise. A validator among others would wait for the rest to outvote it; one that is alone would otherwise
give the same time to every block until its machine's clock has caught up, and every epoch and grace would stand still.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class SteadyClock:
    """Nanoseconds since 1970 that never fall, and rise at least as fast as real time."""

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._seen_ns = monotonic_ns()
        self._now_ns = 0

    def __call__(self) -> int:
        """The time now. Safe to call from any thread."""
        with self._lock:
            seen_ns = self._monotonic_ns()
            self._now_ns = max(self._wall_ns(), self._now_ns + seen_ns - self._seen_ns)
            self._seen_ns = seen_ns
            return self._now_ns

    def raise_to(self, floor_ns: int) -> None:
        """It is at least this late: a block of our own says so."""
        self()
        with self._lock:
            self._now_ns = max(self._now_ns, floor_ns)
