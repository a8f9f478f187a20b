"""When something came last, and when something was said last: how a fetch that goes nowhere is found out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

RECONNECT_S: Final = 5.0
PROGRESS_S: Final = 1.0
PROGRESS_BYTES: Final = 64 * 1024
"""So much has to come within the idle time, or it counts as nothing: a trickle would hold us for ever."""


@dataclass(frozen=True, slots=True)
class Now:
    """What it is time for."""

    is_time_to_tell: bool
    is_time_to_connect: bool
    is_idle: bool


class Watch:
    """The clock of a fetch."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._most = self._marked = 0
        self._since = self._told = self._connected = time.monotonic()

    def restart(self) -> None:
        """As if something had come just now."""
        self._since = time.monotonic()

    def look(self, done: int, *, is_busy: bool) -> Now:
        """
        Args:
            done: bytes that are there.
            is_busy: whether this machine itself is at work, so that nothing can come.
        """
        now = time.monotonic()
        self._most = max(self._most, done)
        if is_busy or self._most >= self._marked + PROGRESS_BYTES:
            self._marked, self._since = self._most, now
        tell, connect = now - self._told >= PROGRESS_S, now - self._connected >= RECONNECT_S
        self._told = now if tell else self._told
        self._connected = now if connect else self._connected
        return Now(tell, connect, now - self._since >= self._idle_s)
