"""Restores all chunks but the last and dies: ``python killed_restorer.py DATABASE``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from full_node.state.snapshots import Restoration
from full_node.state.store import Store
from tests.full_node.state.snapshots.parts import CHAIN
from tests.full_node.state.snapshots.test_restoring import LARGE

if __name__ == "__main__":
    restoration = Restoration(Store(Path(sys.argv[1])), CHAIN)
    restoration.offer(LARGE.snapshot, LARGE.manifest.root)
    for index, packed in enumerate(LARGE.chunks[:-1]):
        restoration.apply(index, packed, "peer")
    os.kill(os.getpid(), signal.SIGKILL)
