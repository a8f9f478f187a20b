"""What garbage collection costs a process that serves for days."""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (50_000, 20, 100)


def freeze_started() -> None:
    """Once all is up: the collector leaves alone what start-up made, and comes seldom for what follows.

    Rows make many objects that reference counting frees at once, beside much that stays. Looking through all of it
    every few rows finds nothing, and drives the next row's code out of the caches.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
