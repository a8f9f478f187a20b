"""The embedded network and the machine's clock, which people set, and which stands still while a laptop sleeps.

Node and light nodes share one clock. Set back, it lets the chain's newest blocks lie in the future for a while; on a
network that would be a reason to refuse them, here it is known to be the same clock's doing.
"""

from __future__ import annotations

import time
from pathlib import Path

from light_node.bundle_trust import LOCAL_DRIFT_NS

FLOOR_FILE = "clock_floor"
MAX_AHEAD_NS = LOCAL_DRIFT_NS
"""A chain whose newest block is this far in the future began under a wrong clock: it is set aside."""


def read_floor_ns(home: Path) -> int:
    """Newest block time known, ns since 1970; 0 where none is known."""
    try:
        return int((home / FLOOR_FILE).read_text())
    except (OSError, ValueError):
        return 0


class JumpWatch:
    """Notices that the machine's clock moved otherwise than time did: it was set, or the machine slept."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def jumped_ns(self) -> int:
        """How far it jumped since the last call, forwards positive."""
        offset_ns = time.time_ns() - time.monotonic_ns()
        jump_ns, self._offset_ns = offset_ns - self._offset_ns, offset_ns
        return jump_ns
