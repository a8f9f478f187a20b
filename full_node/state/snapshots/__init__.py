"""Snapshots of the state: taken beside a running chain, offered to others, restored under a trusted root.

A plain, synchronous door; engines put their own wire before it.

    shelf.list(), shelf.chunk(height, index)         what this node has to give
    taker.note_committed(height)                     after each block
    restoration.offer(snapshot, app_hash)            into an empty store
    restoration.apply(index, chunk, sender)
"""

from full_node.state.snapshots.format import FORMAT, Snapshot
from full_node.state.snapshots.restoring import (
    ApplyAnswer,
    ApplyResult,
    OfferAnswer,
    OfferResult,
    Restoration,
)
from full_node.state.snapshots.shelf import Shelf
from full_node.state.snapshots.taking import SnapshotSettings, SnapshotTaker, take_snapshot

__all__ = [
    "FORMAT",
    "ApplyAnswer",
    "ApplyResult",
    "OfferAnswer",
    "OfferResult",
    "Restoration",
    "Shelf",
    "Snapshot",
    "SnapshotSettings",
    "SnapshotTaker",
    "take_snapshot",
]
