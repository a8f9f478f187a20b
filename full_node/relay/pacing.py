"""How fast streams are forwarded: a bucket of bytes for each stream, and one for each remote that sends.

A message is always forwarded whole; whoever has sent more than its buckets held is not read until they are even again.
So nothing is dropped, and a sender feels it as a slow line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

BURST_S = 2
"""Seconds of its pace that a bucket holds: what may pass at once after a silence."""


@dataclass(slots=True)
class Bucket:
    """Fills by so many bytes a second; taking more than it holds leaves a debt."""

    bytes_per_s: int
    debt_bytes: float
    """What is missing until it is full; more than `BURST_S` worth is owed time."""
    at_ms: int
    """When that was so."""

    def take(self, cost_bytes: int, now_ms: int) -> int:
        """Take so many bytes; how many milliseconds the taker has to wait for it."""
        self.debt_bytes = self._debt_at(now_ms) + cost_bytes
        self.at_ms = now_ms
        owed_bytes = self.debt_bytes - BURST_S * self.bytes_per_s
        return math.ceil(owed_bytes * 1000 / self.bytes_per_s) if owed_bytes > 0 else 0

    def is_full(self, now_ms: int) -> bool:
        """Whether it is as if nobody had ever taken anything."""
        return self._debt_at(now_ms) <= 0

    def _debt_at(self, now_ms: int) -> float:
        return max(0.0, self.debt_bytes - (now_ms - self.at_ms) * self.bytes_per_s / 1000)


class Pacing:
    """The buckets of all who send."""

    def __init__(self, stream_bytes_per_s: int, remote_bytes_per_s: int) -> None:
        self._stream_bytes_per_s = stream_bytes_per_s
        self._remote_bytes_per_s = remote_bytes_per_s
        self._remotes: dict[str, Bucket] = {}
        """Of those whose streams sent something lately; a full one is forgotten, so they are as few as senders."""

    def __len__(self) -> int:
        return len(self._remotes)

    def new_stream(self, now_ms: int) -> Bucket:
        """The bucket of a stream, both directions together."""
        return Bucket(self._stream_bytes_per_s, 0.0, now_ms)

    def take(self, stream: Bucket, remote: str, cost_bytes: int, now_ms: int) -> int:
        """Count a message; how many milliseconds its sender is not to be read."""
        of_remote = self._remotes.setdefault(remote, Bucket(self._remote_bytes_per_s, 0.0, now_ms))
        return max(stream.take(cost_bytes, now_ms), of_remote.take(cost_bytes, now_ms))

    def forget(self, now_ms: int) -> None:
        """Drop the buckets that are full."""
        for remote in [one for one, bucket in self._remotes.items() if bucket.is_full(now_ms)]:
            del self._remotes[remote]
