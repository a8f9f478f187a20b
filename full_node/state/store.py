"""The node's store: state tree and blocks in one SQLite file, one atomic transaction a block.

`put` computes a new version of the state, `commit` writes it together with the block that made it. Either
everything of a block is there or nothing, so after a kill the node goes on from the last whole block. What
fell out of the proof window is deleted in the same transaction, a block's worth at a time.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from dllm_protocol.errors import NotFound
from dllm_protocol.jmt import key_position
from full_node.state.blocks import (
    BlockReader,
    BlockRecord,
    delete_blocks_below,
    write_block,
    write_validator_set,
)
from full_node.state.page import Slot, StoreDamaged, decode_slot, encode_slot, place_hash
from full_node.state.schema import open_reader, open_writer
from full_node.state.tree import DEFAULT_CACHED_PAGES, PageCache, Prover, StateTree, TreeUpdateBatch

DEFAULT_PROOF_WINDOW = 10_000
"""How many versions back a proof can be asked for."""
DEFAULT_CACHED_VALUES = 65_536
_CACHED_VALUE_BYTES = 4_096
_PROVER_CACHED_PAGES = 4_096
_NEWEST_VERSION = "SELECT version, slot FROM versions ORDER BY version DESC LIMIT 1"
_LATEST_LEAF = "SELECT value FROM leaves WHERE position = ? AND version <= ? ORDER BY version DESC LIMIT 1"


class HeightPruned(NotFound):
    """The asked height is older than what this node keeps, or not there yet."""

    code = "E_HEIGHT"


@dataclass(frozen=True, slots=True)
class ProvedValue:
    """A key's value at a height with its proof: value None means proved absent."""

    height: int
    value: bytes | None
    proof: bytes


class Store:
    """All that a node must not lose. One thread writes (`put`, `commit`, `get`), any thread reads the
    rest.
    """

    def __init__(
        self,
        path: Path,
        *,
        proof_window: int = DEFAULT_PROOF_WINDOW,
        block_window: int = 0,
        cached_pages: int = DEFAULT_CACHED_PAGES,
    ) -> None:
        """Opens or creates the file at `path`; a `block_window` of 0 keeps every block. Raises
        StoreDamaged.
        """
        self._writer = open_writer(path)
        self._reader = open_reader(path)
        self._read_lock = Lock()
        self.proofs_given = 0
        """Since the file was opened."""
        self._proof_window = proof_window
        self._block_window = block_window
        self._values: OrderedDict[bytes, bytes | None] = OrderedDict()
        self.blocks = BlockReader(self._reader, self._read_lock)
        # Of their own, so that a long search keeps nobody else waiting.
        self._searcher, self._search_lock = open_reader(path), Lock()
        self.searches = BlockReader(self._searcher, self._search_lock)
        row = self._writer.execute(_NEWEST_VERSION).fetchone()
        self._version: int = row[0] if row else -1
        slot = decode_slot(row[1]) if row else None
        self._tree = StateTree(PageCache(self._load_page_to_write, cached_pages), slot)
        self._prover = Prover(PageCache(self._load_page_to_prove, _PROVER_CACHED_PAGES), self._load_original)

    @property
    def version(self) -> int:
        """The newest committed version (block height; 0 after genesis, -1 in an empty store)."""
        return self._version

    @property
    def root(self) -> bytes:
        """Root hash of the newest committed version."""
        return self._tree.root

    def close(self) -> None:
        """Closes the file; everything committed is on the disk already."""
        self._writer.close()
        with self._read_lock:
            self._reader.close()
        with self._search_lock:
            self._searcher.close()

    def get(self, key: bytes) -> bytes | None:
        """The value under `key` in the newest version; for the writing thread."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        row = self._writer.execute(_LATEST_LEAF, (key_position(key), self._version)).fetchone()
        value: bytes | None = row[0] if row else None
        self._remember(key, value)
        return value

    def put(self, version: int, changes: Mapping[bytes, bytes | None]) -> tuple[bytes, TreeUpdateBatch]:
        """Computes the version after the newest one; nothing is written. Returns (root, batch for `commit`).

        Raises:
            ValueError: not the next version, or an empty key or value.
        """
        if version != self._version + 1:
            raise ValueError(f"version {version} asked for, the next one is {self._version + 1}")
        return self._tree.put(version, changes)

    def commit(
        self,
        batch: TreeUpdateBatch,
        record: BlockRecord | None,
        *,
        meta: Mapping[str, bytes],
        validator_sets: Mapping[bytes, bytes],
    ) -> None:
        """Writes a version and its block (None for genesis) in one transaction, durable on return.

        Args:
            batch: from `put`.
            record: the block that made this version.
            meta: named values to set, e.g. the engine's state.
            validator_sets: sets to keep, by hash.
        """
        connection = self._writer
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._write_tree(batch)
            if record is not None:
                write_block(connection, record)
            for name, members in validator_sets.items():
                write_validator_set(connection, name, members)
            connection.executemany("INSERT OR REPLACE INTO meta VALUES (?,?)", list(meta.items()))
            self._prune(batch.version)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        self._tree.commit(batch)
        self._version = batch.version
        for _, key, value in batch.leaves:
            self._remember(key, value)

    def begin_restore(self) -> sqlite3.Connection:
        """The writing connection, inside the one transaction that fills an empty store with pages and leaves.

        Raises:
            ValueError: the store is not empty.
        """
        if self._version >= 0:
            raise ValueError(f"the store is at version {self._version}, only an empty one can be filled")
        self._writer.execute("BEGIN IMMEDIATE")
        return self._writer

    def finish_restore(self, version: int, slot: Slot) -> None:
        """Makes what was written since `begin_restore` the only version, durable on return."""
        self._writer.execute(
            "INSERT INTO versions VALUES (?,?,?)", (version, place_hash(slot), encode_slot(slot))
        )
        self._writer.execute("COMMIT")
        self._version = version
        self._tree.reset(slot)
        self._values.clear()

    def abandon_restore(self) -> None:
        """Takes back what was written since `begin_restore`."""
        self._writer.execute("ROLLBACK")

    def meta(self, name: str) -> bytes | None:
        """A named value set by `commit`."""
        with self._read_lock:
            row = self._reader.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def root_at(self, version: int) -> bytes:
        """Root hash of a version. Raises HeightPruned."""
        with self._read_lock:
            row = self._reader.execute("SELECT root FROM versions WHERE version = ?", (version,)).fetchone()
        if row is None:
            raise HeightPruned(f"state of height {version} is not kept here")
        root: bytes = row[0]
        return root

    def value_at(self, key: bytes, version: int) -> bytes | None:
        """The value under `key` as of a version in the proof window. Raises HeightPruned."""
        with self._read_lock:
            self._slot_at(version)
            row = self._reader.execute(_LATEST_LEAF, (key_position(key), version)).fetchone()
        return row[0] if row else None

    def prove(self, key: bytes, version: int) -> ProvedValue:
        """The value under `key` as of a version, with the proof of presence or absence.

        Raises:
            HeightPruned: the version is outside the window.
        """
        with self._read_lock:
            self._reader.execute("BEGIN")  # one snapshot, so that pruning cannot pass between two reads
            try:
                value, proof = self._prover.prove(self._slot_at(version), key)
            finally:
                self._reader.execute("COMMIT")
            self.proofs_given += 1
        return ProvedValue(version, value, proof)

    def _remember(self, key: bytes, value: bytes | None) -> None:
        if value is not None and len(value) > _CACHED_VALUE_BYTES:
            self._values.pop(key, None)
            return
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > DEFAULT_CACHED_VALUES:
            self._values.popitem(last=False)

    def _write_tree(self, batch: TreeUpdateBatch) -> None:
        connection, version = self._writer, batch.version
        connection.execute(
            "INSERT INTO versions VALUES (?,?,?)", (version, batch.root, encode_slot(batch.slot))
        )
        connection.executemany("INSERT INTO pages VALUES (?,?,?)", batch.page_rows())
        connection.executemany(
            "INSERT INTO leaves VALUES (?,?,?,?)",
            [(position, version, key, value) for position, key, value in batch.leaves],
        )
        # A deleted leaf leaves a row without value, itself stale at once: older versions end there.
        gone = [(position, version) for position, _, value in batch.leaves if value is None]
        stale = [(version, 0, place, old) for place, old in batch.stale_pages]
        stale += [(version, 1, place, old) for place, old in (*batch.stale_leaves, *gone)]
        connection.executemany("INSERT INTO stale VALUES (?,?,?,?)", stale)

    def _prune(self, version: int) -> None:
        connection = self._writer
        oldest = version - self._proof_window + 1
        if oldest > 0:
            rows = connection.execute(
                "SELECT leaf, place, version FROM stale WHERE since <= ?", (oldest,)
            ).fetchall()
            for leaf, table, column in ((0, "pages", "path"), (1, "leaves", "position")):
                connection.executemany(
                    f"DELETE FROM {table} WHERE {column} = ? AND version = ?",  # noqa: S608 - constants
                    [(place, old) for kind, place, old in rows if kind == leaf],
                )
            connection.execute("DELETE FROM stale WHERE since <= ?", (oldest,))
            connection.execute("DELETE FROM versions WHERE version < ?", (oldest,))
        if self._block_window and version > self._block_window:
            delete_blocks_below(connection, version - self._block_window + 1)

    def _slot_at(self, version: int) -> Slot:
        row = self._reader.execute("SELECT slot FROM versions WHERE version = ?", (version,)).fetchone()
        if row is None:
            raise HeightPruned(f"state of height {version} is not kept here")
        return decode_slot(row[0])

    def _load_page_to_write(self, path: bytes, version: int) -> bytes | None:
        return _page(self._writer, path, version)

    def _load_page_to_prove(self, path: bytes, version: int) -> bytes | None:
        return _page(self._reader, path, version)

    def _load_original(self, position: bytes, version: int) -> tuple[bytes, bytes]:
        row = self._reader.execute(
            "SELECT key, value FROM leaves WHERE position = ? AND version = ?", (position, version)
        ).fetchone()
        if row is None or row[1] is None:
            raise StoreDamaged(f"leaf {position.hex()} of version {version} is missing")
        return row[0], row[1]


def _page(connection: sqlite3.Connection, path: bytes, version: int) -> bytes | None:
    row = connection.execute(
        "SELECT page FROM pages WHERE path = ? AND version = ?", (path, version)
    ).fetchone()
    return row[0] if row else None
