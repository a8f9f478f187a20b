"""Whether a batch waits a moment for rows that are about to come: it costs hardly more with them than without.

Sessions that were in one batch are answered together and ask again almost together, but each in a frame of its own.
Begun with the first, the batch would have one row, and the others wait until it is done; so sessions would drift apart,
and every matrix would be read once for each of them. How long a session stays away between an answer and its next row
is much the same from row to row, also where the row goes over other stages: so it is known who is about to come.
Nobody is waited for who is not due, and never longer than a small part of what the batch itself takes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

PATIENCE_SHARE: Final = 0.5
"""Of the last batch's time: about what a second batch costs more than further rows in the first. Where each stage is a
machine of its own, groups that follow each other lie a whole batch apart, and stay so."""
MAX_PATIENCE_S: Final = 0.05
_LATE_SHARE: Final = 0.1
"""Of its time away, by which a session may be late and is still waited for."""


class Gathering:
    """Knows of each sequence when it was answered and how long it stayed away the last time."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        """``clock_s``: monotonic seconds."""
        self._clock_s = clock_s
        self._answered_s: dict[int, float] = {}
        self._away_s: dict[int, float] = {}
        self._since_s: float | None = None

    def asked(self, sequence: int) -> None:
        """A request of this sequence came."""
        answered_s = self._answered_s.pop(sequence, None)
        if answered_s is not None:
            self._away_s[sequence] = self._clock_s() - answered_s

    def answered(self, sequences: Collection[int]) -> None:
        """These got their answers just now; what is gathered from here on is for another batch."""
        now_s = self._clock_s()
        self._since_s = None
        for sequence in sequences:
            self._answered_s[sequence] = now_s

    def forget(self, sequence: int) -> None:
        """This sequence serves another session from now on."""
        self._answered_s.pop(sequence, None)
        self._away_s.pop(sequence, None)

    def patience_s(self, batch_s: float) -> float:
        """How long to wait for the next request at most, where rows wait already; 0 = begin.

        Args:
            batch_s: what the last batch took.
        """
        now_s = self._clock_s()
        if self._since_s is None:
            self._since_s = now_s
        left_s = self._since_s + min(MAX_PATIENCE_S, PATIENCE_SHARE * batch_s) - now_s
        if left_s <= 0:
            return 0.0
        return left_s if any(self._is_due(one, now_s, left_s) for one in self._answered_s) else 0.0

    def _is_due(self, sequence: int, now_s: float, left_s: float) -> bool:
        away_s = self._away_s.get(sequence)
        if away_s is None:
            return False
        late_s = now_s - self._answered_s[sequence] - away_s
        return -left_s <= late_s <= max(left_s, _LATE_SHARE * away_s)
