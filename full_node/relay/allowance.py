"""How often one network address may open connections: a bucket of tokens for each that came lately."""

from __future__ import annotations

REMOTES_MAX = 65_536
MINUTE_MS = 60_000


class Allowance:
    """Counts openings by remote. A remote that stayed away for a minute is forgotten."""

    def __init__(self, per_minute: int, remotes_max: int = REMOTES_MAX) -> None:
        self._per_minute = per_minute
        self._remotes_max = remotes_max
        self._spent: dict[str, tuple[float, int]] = {}
        """Remote → (tokens spent, when that was so)."""

    def __len__(self) -> int:
        return len(self._spent)

    def take(self, remote: str, now_ms: int) -> bool:
        """Whether one more is allowed now; counts it where it is."""
        spent = self._spent_by(remote, now_ms)
        if spent + 1 > self._per_minute:
            return False
        if remote not in self._spent and len(self._spent) >= self._remotes_max:
            return False  # until the next `forget`, which looks at all of them
        self._spent[remote] = (spent + 1, now_ms)
        return True

    def give_back(self, remote: str, now_ms: int) -> None:
        """The last one does not count."""
        if remote in self._spent:
            self._spent[remote] = (max(0.0, self._spent_by(remote, now_ms) - 1), now_ms)

    def forget(self, now_ms: int) -> None:
        """Drop remotes that have all their tokens back."""
        for remote in [one for one in self._spent if self._spent_by(one, now_ms) <= 0]:
            del self._spent[remote]

    def _spent_by(self, remote: str, now_ms: int) -> float:
        spent, at_ms = self._spent.get(remote, (0.0, now_ms))
        return max(0.0, spent - (now_ms - at_ms) * self._per_minute / MINUTE_MS)
