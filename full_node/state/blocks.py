"""Blocks in the database: one row a block, indexes of transactions and events."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from dllm_protocol.errors import UsageRefused

TXS_FOUND_MAX = 10_000
SEARCH_STEPS_MAX = 20_000_000
"""Steps of SQLite's machine that one search may take: about a second."""
_STEPS_A_LOOK = 10_000


class SearchTooBroad(UsageRefused):
    """A search that one caller may not ask of a shared node."""

    code = "E_SEARCH"


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """Everything kept of a block, in bytes; written in one transaction with the state.

    Attributes:
        height: the block's height.
        hash: its header's hash.
        header: encoded header.
        block_id: encoded BlockID.
        seen_commit: encoded commit over this block.
        block: encoded block.
        results: JSON object with `txs_results` and `finalize_block_events`, as `block_results` answers.
        validators_hash: name of the set that signs this height.
        tx_hashes: in block order.
        events: (name, value, place of the transaction) to be searchable.
    """

    height: int
    hash: bytes
    header: bytes
    block_id: bytes
    seen_commit: bytes
    block: bytes
    results: bytes
    tx_hashes: Sequence[bytes] = ()
    events: Sequence[tuple[str, str, int]] = ()


@dataclass(frozen=True, slots=True)
class BlockMeta:
    """What a block's row says without its transactions; bytes as in `BlockRecord`, sizes in bytes."""

    height: int
    hash: bytes
    header: bytes
    block_id: bytes
    seen_commit: bytes
    size: int
    tx_count: int


_HAS_EVENT = "(height, place) IN (SELECT height, place FROM events WHERE name = ? AND value = ?)"
_META = "height, hash, header, block_id, seen_commit, size, tx_count"


def write_block(connection: sqlite3.Connection, record: BlockRecord) -> None:
    """Inserts a block inside the caller's transaction."""
    connection.execute(
        f"INSERT INTO blocks ({_META}, block, results) VALUES (?,?,?,?,?,?,?,?,?)",  # noqa: S608 - a constant
        (
            record.height,
            record.hash,
            record.header,
            record.block_id,
            record.seen_commit,
            len(record.block),
            len(record.tx_hashes),
            record.block,
            record.results,
        ),
    )
    # The same bytes may be put in twice, failing the second time; the first place stays the answer.
    connection.executemany(
        "INSERT OR IGNORE INTO txs (hash, height, place) VALUES (?,?,?)",
        [(name, record.height, place) for place, name in enumerate(record.tx_hashes)],
    )
    connection.executemany(
        "INSERT OR IGNORE INTO events (name, value, height, place) VALUES (?,?,?,?)",
        [(name, value, record.height, place) for name, value, place in record.events],
    )


def write_validator_set(connection: sqlite3.Connection, name: bytes, validators: bytes) -> None:
    """Keeps a validator set under its hash."""
    connection.execute("INSERT OR REPLACE INTO validator_sets VALUES (?,?)", (name, validators))


def delete_blocks_below(connection: sqlite3.Connection, height: int) -> None:
    """Forgets blocks below a height, with their transactions and events."""
    connection.execute("DELETE FROM txs WHERE height < ?", (height,))
    connection.execute("DELETE FROM events WHERE height < ?", (height,))
    connection.execute("DELETE FROM blocks WHERE height < ?", (height,))


class BlockReader:
    """Reads committed blocks; safe to use from several threads."""

    def __init__(self, connection: sqlite3.Connection, lock: Lock) -> None:
        self._connection = connection
        self._lock = lock

    def _row(self, statement: str, *values: object) -> tuple[object, ...] | None:
        with self._lock:
            row: tuple[object, ...] | None = self._connection.execute(statement, values).fetchone()
        return row

    def _bytes(self, statement: str, *values: object) -> bytes | None:
        row = self._row(statement, *values)
        if row is None:
            return None
        assert isinstance(row[0], bytes)
        return row[0]

    def latest_height(self) -> int:
        """Height of the newest block; 0 before the first."""
        row = self._row("SELECT max(height) FROM blocks")
        return row[0] if row is not None and isinstance(row[0], int) else 0

    def earliest_height(self) -> int:
        """Height of the oldest block kept; 0 before the first."""
        row = self._row("SELECT min(height) FROM blocks")
        return row[0] if row is not None and isinstance(row[0], int) else 0

    def meta(self, height: int) -> BlockMeta | None:
        """A block's row without its transactions."""
        with self._lock:
            row = self._connection.execute(
                f"SELECT {_META} FROM blocks WHERE height = ?",  # noqa: S608 - a constant
                (height,),
            ).fetchone()
        return BlockMeta(*row) if row else None

    def metas(self, low: int, high: int) -> list[BlockMeta]:
        """Rows of the heights low … high, newest first."""
        with self._lock:
            rows = self._connection.execute(
                f"SELECT {_META} FROM blocks WHERE height BETWEEN ? AND ? ORDER BY height DESC",  # noqa: S608
                (low, high),
            ).fetchall()
        return [BlockMeta(*row) for row in rows]

    def height_of(self, block_hash: bytes) -> int | None:
        """Height of the block with this hash."""
        row = self._row("SELECT height FROM blocks WHERE hash = ?", block_hash)
        return row[0] if row is not None and isinstance(row[0], int) else None

    def block(self, height: int) -> bytes | None:
        """Encoded block."""
        return self._bytes("SELECT block FROM blocks WHERE height = ?", height)

    def results(self, height: int) -> bytes | None:
        """JSON of `txs_results` and `finalize_block_events`."""
        return self._bytes("SELECT results FROM blocks WHERE height = ?", height)

    def validator_set(self, name: bytes) -> bytes | None:
        """The validator set with this hash, as it was written."""
        return self._bytes("SELECT validators FROM validator_sets WHERE hash = ?", name)

    def find_tx(self, name: bytes) -> tuple[int, int] | None:
        """(height, place in the block) of a transaction."""
        row = self._row("SELECT height, place FROM txs WHERE hash = ?", name)
        if row is None:
            return None
        height, place = row
        assert isinstance(height, int)
        assert isinstance(place, int)
        return height, place

    def search(
        self, events: Sequence[tuple[str, str]], heights: tuple[int, int], tx_name: bytes | None
    ) -> list[tuple[int, int]]:
        """(height, place) of the transactions that have all these events, lie in these heights, and have
        this hash.

        At most TXS_FOUND_MAX, oldest first.

        Raises:
            SearchTooBroad: it would take longer than one caller may take.
        """
        conditions = ["height BETWEEN ? AND ?"]
        values: list[object] = [*heights]
        if tx_name is not None:
            conditions.append("hash = ?")
            values.append(tx_name)
        for name, value in events:
            conditions.append(_HAS_EVENT)
            values += [name, value]
        statement = (
            "SELECT height, place FROM txs WHERE "  # noqa: S608 - conditions are constants, values are bound
            + " AND ".join(conditions)
            + f" ORDER BY height, place LIMIT {TXS_FOUND_MAX}"
        )
        looks_left = SEARCH_STEPS_MAX // _STEPS_A_LOOK

        def spent() -> bool:
            nonlocal looks_left
            looks_left -= 1
            return looks_left < 0

        with self._lock:
            self._connection.set_progress_handler(spent, _STEPS_A_LOOK)
            try:
                return list(self._connection.execute(statement, values).fetchall())
            except sqlite3.OperationalError as error:
                if looks_left < 0:
                    raise SearchTooBroad(
                        "the search looks at too many transactions", hint="narrow it, e.g. by tx.height"
                    ) from error
                raise
            finally:
                self._connection.set_progress_handler(None, 0)
