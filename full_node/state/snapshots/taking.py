"""Takes snapshots while the chain goes on: a thread of its own reads one height through its own connection.

A read transaction shows the database as it was when it began, whatever is written meanwhile, and the state is
versioned, so a height that is already behind can still be read. Memory holds one chunk.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread

from dllm_protocol.errors import UsageRefused
from full_node.state.schema import open_reader
from full_node.state.snapshots.format import (
    CHUNK_BYTES,
    CHUNKS_MAX,
    FORMAT,
    Manifest,
    SnapshotRefused,
    chunk_hash,
    encode_pair,
    pack_chunk,
)
from full_node.state.snapshots.shelf import Shelf

log = logging.getLogger(__name__)
_ROOT = "SELECT root FROM versions WHERE version = ?"
# Of each position the newest row that is not above the height, in the order of the primary key; with max() in
# the selection SQLite takes the other columns from that same row.
_PAIRS = "SELECT key, value, max(version) FROM leaves WHERE version <= ? GROUP BY position ORDER BY position"


@dataclass(frozen=True, slots=True)
class SnapshotSettings:
    """When snapshots are taken.

    Attributes:
        every_blocks: at each height that it divides; 0 = never.
        keep: how many stay on the shelf, the newest ones. With less than two, the one that another node is just
            fetching would go when the next is there.
    """

    every_blocks: int = 0
    keep: int = 2

    def __post_init__(self) -> None:
        if self.every_blocks < 0 or self.keep < 1:
            raise UsageRefused(
                f"snapshots every {self.every_blocks} blocks, {self.keep} kept: at least 0 and 1 are wanted"
            )


class HeightGone(SnapshotRefused):
    """The height has left the window of versions that the store keeps."""

    code = "E_SNAPSHOT_HEIGHT"


class SnapshotUnwanted(SnapshotRefused):
    """The node stops before the snapshot is done."""

    code = "E_SNAPSHOT_UNWANTED"


def take_snapshot(
    database: Path,
    shelf: Shelf,
    chain_id: str,
    height: int,
    is_unwanted: Callable[[], bool] = lambda: False,
) -> Manifest:
    """Writes the snapshot of a height onto the shelf; the chain may go on meanwhile.

    Args:
        is_unwanted: asked before each chunk; once it says yes, the work is given up.

    Raises:
        SnapshotUnwanted: it was given up.
        HeightGone: the store does not keep this height's state any more.
        SnapshotRefused: the state does not fit the format.
    """
    writer = shelf.begin(height)
    try:
        with contextlib.closing(open_reader(database)) as connection:
            connection.execute("BEGIN")
            row = connection.execute(_ROOT, (height,)).fetchone()
            if row is None:
                raise HeightGone(f"state of height {height} is not kept here")
            hashes: list[bytes] = []
            tally = _Tally()
            for content in _contents(connection, height, tally):
                if is_unwanted():
                    raise SnapshotUnwanted(f"the snapshot of height {height} was given up")
                if len(hashes) == CHUNKS_MAX:
                    raise SnapshotRefused(
                        f"the state has more than {CHUNKS_MAX} chunks of {CHUNK_BYTES} bytes"
                    )
                writer.add(len(hashes), pack_chunk(content))
                hashes.append(chunk_hash(content))
        manifest = Manifest(FORMAT, chain_id, height, row[0], tally.pairs, tally.bytes, tuple(hashes))
        writer.finish(manifest)
    except BaseException:
        writer.abandon()
        raise
    return manifest


@dataclass(slots=True)
class _Tally:
    pairs: int = 0
    bytes: int = 0


def _contents(connection: sqlite3.Connection, height: int, tally: _Tally) -> Iterator[bytes]:
    """The stream of pairs, cut into chunks."""
    waiting = bytearray()
    for key, value, _ in connection.execute(_PAIRS, (height,)):
        if value is None:
            continue  # deleted
        waiting += encode_pair(key, value)
        tally.pairs += 1
        while len(waiting) >= CHUNK_BYTES:
            yield bytes(waiting[:CHUNK_BYTES])
            tally.bytes += CHUNK_BYTES
            del waiting[:CHUNK_BYTES]
    if waiting:
        yield bytes(waiting)
        tally.bytes += len(waiting)


class SnapshotTaker:
    """Takes a snapshot at every so-manieth block in a thread of its own; a failure is logged, the chain goes on."""

    def __init__(self, database: Path, shelf: Shelf, chain_id: str, settings: SnapshotSettings) -> None:
        self._database = database
        self._shelf = shelf
        self._chain_id = chain_id
        self._settings = settings
        self._wanted: int | None = None
        self._stopping = False
        self._busy = False
        self._changed = Condition()
        # Not waited for when the process dies: what it has written by then is swept away at the next start.
        self._thread = Thread(target=self._run, name="snapshots", daemon=True)
        self._thread.start()

    def note_committed(self, height: int) -> None:
        """Says that a block is in the store; returns at once. While one snapshot is taken, only the newest of the
        heights that wait is taken next.
        """
        every = self._settings.every_blocks
        if every and height % every == 0:
            with self._changed:
                self._wanted = height
                self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Whether everything that was asked for is done, waiting up to `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._wanted is None and not self._busy, timeout_s)

    def close(self) -> None:
        """Takes no more; a snapshot under way is given up."""
        with self._changed:
            self._stopping, self._wanted = True, None
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while (height := self._next()) is not None:
            try:
                manifest = take_snapshot(
                    self._database, self._shelf, self._chain_id, height, lambda: self._stopping
                )
                self._shelf.keep_newest(self._settings.keep)
            except SnapshotUnwanted as unwanted:
                log.info("%s", unwanted.message)
            except (SnapshotRefused, sqlite3.Error, OSError):
                log.exception("no snapshot of height %d", height)
            else:
                log.info(
                    "snapshot height=%d chunks=%d bytes=%d",
                    height,
                    len(manifest.chunk_hashes),
                    manifest.content_bytes,
                )
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _next(self) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._wanted is not None)
            height, self._wanted = self._wanted, None
            self._busy = height is not None
        return height
