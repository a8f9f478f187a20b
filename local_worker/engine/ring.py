"""Whether the last stage tells the first one the likeliest token before the client has chosen.

A client that samples the likeliest token anyway need not be waited for: the first stage decodes that row while the
logits still travel to the client, and its hidden state goes on to the next stages under the number that the client
gives its next request if it agrees. If it does not, that number is never used, and what was computed for it is dropped.

A row computed in vain costs the first stage one row's time, which the client's own row may have to wait for. So guesses
begin where the last few tokens were the likeliest ones, and each wrong one doubles how many that must be, as in
`local_worker.engine.run_ahead`. The client's numbers say how good guesses are, also where none was made: it leaves one
out whenever it chose another token than the likeliest.

All stages see these numbers. So no stage that decodes ahead has to trust the one that made it do so: it stops by the
same rule, but begins at once, for the one before has waited long enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIN_STREAK: Final = 4
MAX_STREAK: Final = 128


@dataclass(slots=True)
class _Guessing:
    """About one lane."""

    needed: int
    request: int = 0
    position: int = -1
    streak: int = 0
    hits: int = 0
    has_told: bool = False


class Ring:
    """Decides for all lanes, of one kind: where something is told, or where it is heard."""

    def __init__(self, least: int = MIN_STREAK) -> None:
        """``least``: tokens that must have been the likeliest before the first guess."""
        self._least = least
        self._lanes: dict[int, _Guessing] = {}

    def asked(self, lane: int, request: int, position: int) -> None:
        """A row was asked for, of the session that the lane is of."""
        one = self._lanes.setdefault(lane, _Guessing(self._least))
        is_next_row = position == one.position + 1
        if is_next_row and request == one.request + 1:
            one.streak += 1
            if one.has_told:
                self._hit(one)
        else:
            one.streak = 0
            if is_next_row and one.has_told:
                one.needed, one.hits = min(max(MIN_STREAK, 2 * one.needed), MAX_STREAK), 0
        one.request, one.position, one.has_told = request, position, False

    def _hit(self, one: _Guessing) -> None:
        one.hits += 1
        if one.hits >= one.needed:
            one.needed, one.hits = max(self._least, one.needed // 2), 0

    def tells(self, lane: int) -> bool:
        """Whether the row behind the one asked for last is worth a guess: it is told, or heard, and counts as made."""
        one = self._lanes.get(lane)
        if one is None or one.streak < one.needed:
            return False
        one.has_told = True
        return True

    def forget(self, lane: int) -> None:
        """The lane is gone."""
        self._lanes.pop(lane, None)
