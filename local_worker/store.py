"""What the worker must never forget: vouchers, rows served, and what was paid out.

SQLite in WAL mode with full syncs: `put` returns when the voucher survives kill -9 and a power cut. Writes of all
sessions that come together share one transaction, and none of them holds up the event loop.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from dllm_protocol.pricing import RowCounts
from dllm_protocol.schema_steps import Schema, bring_up_to_date
from dllm_protocol.session.provider import Standing
from dllm_protocol.voucher import SignedVoucher
from light_node.sqlite_files import keep_old_version, switch_to_wal

_VERSION_1 = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE sessions (session BLOB PRIMARY KEY, voucher BLOB, served BLOB NOT NULL, "
    "served_rows INTEGER NOT NULL DEFAULT 0, "
    "owed_udllm INTEGER NOT NULL DEFAULT 0, claimed_udllm INTEGER NOT NULL DEFAULT 0, "
    "settled INTEGER NOT NULL DEFAULT 0, last_seen_ms INTEGER NOT NULL)",
    "CREATE INDEX unsettled ON sessions (settled, last_seen_ms)",
)
SCHEMA = Schema("worker store", 0x444C4C57, (_VERSION_1,))  # "DLLW"
_SELECT = "SELECT session, voucher, served, owed_udllm, claimed_udllm, settled, last_seen_ms FROM sessions "
_ONE = _SELECT + "WHERE session = ?"
_UNSETTLED = _SELECT + "WHERE settled = 0 ORDER BY last_seen_ms LIMIT ?"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as the worker remembers it."""

    session: bytes
    standing: Standing
    owed_udllm: int
    """This provider's leg in the best voucher."""
    claimed_udllm: int
    """What the chain has paid for that leg, as far as it was seen proved."""
    settled: bool
    """The session is over on chain: nothing more can be claimed."""
    last_seen_ms: int
    """The worker's clock when the client was last connected."""

    @property
    def unclaimed_udllm(self) -> int:
        """What is still to be had."""
        return 0 if self.settled else max(0, self.owed_udllm - self.claimed_udllm)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all sessions."""

    earned_unclaimed_udllm: int
    claimed_udllm: int
    rows_served: int
    sessions: int


_Write = tuple[str, tuple[object, ...]]


class Store:
    """One worker's memory. Opened, used and closed from one event loop."""

    def __init__(self, path: Path) -> None:
        """Open or create the file (0600).

        Raises:
            SchemaRefused: another program's file, or a newer version's.
        """
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            bring_up_to_date(self._db, SCHEMA, str(path), partial(keep_old_version, path))
            switch_to_wal(self._db)
            self._db.execute("PRAGMA synchronous = FULL")
        except BaseException:
            self._db.close()
            raise
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._waiting: list[tuple[_Write, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None

    async def standing(self, session: bytes) -> Standing:
        """What is known of a session; an empty standing for a new one."""
        row = await self.row(session)
        return row.standing if row else Standing()

    async def row(self, session: bytes) -> SessionRow | None:
        """A session, or None where it was never served."""
        rows = await self._read(_ONE, (session,))
        return _row(rows[0]) if rows else None

    async def unsettled(self, limit: int = 1024) -> list[SessionRow]:
        """Sessions that are not over, longest unseen first."""
        return [_row(row) for row in await self._read(_UNSETTLED, (limit,))]

    async def totals(self) -> Totals:
        """Sums over all sessions, settled ones too."""
        query = (
            "SELECT COALESCE(SUM(CASE WHEN settled = 0 THEN MAX(0, owed_udllm - claimed_udllm) ELSE 0 END), 0), "
            "COALESCE(SUM(claimed_udllm), 0), COALESCE(SUM(served_rows), 0), COUNT(*) FROM sessions"
        )
        ((unclaimed, claimed, rows, count),) = await self._read(query, ())
        return Totals(unclaimed, claimed, rows, count)

    async def put(self, session: bytes, standing: Standing, owed_udllm: int, now_ms: int) -> None:
        """Remember a standing; it is on disk when this returns."""
        voucher = standing.voucher.encode() if standing.voucher else None
        statement = (
            "INSERT INTO sessions (session, voucher, served, served_rows, owed_udllm, last_seen_ms) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (session) DO UPDATE SET voucher = excluded.voucher, "
            "served = excluded.served, served_rows = excluded.served_rows, "
            "owed_udllm = excluded.owed_udllm, last_seen_ms = excluded.last_seen_ms"
        )
        served = standing.served
        await self._write(statement, (session, voucher, served.encode(), served.total, owed_udllm, now_ms))

    async def paid(self, session: bytes, claimed_udllm: int, *, settled: bool) -> None:
        """The chain was seen to have paid this much in all; ``settled``: and will pay no more."""
        statement = (
            "UPDATE sessions SET claimed_udllm = MAX(claimed_udllm, ?), settled = MAX(settled, ?) "
            "WHERE session = ?"
        )
        await self._write(statement, (claimed_udllm, int(settled), session))

    async def fact(self, name: str) -> str | None:
        """A named fact about this store."""
        rows = await self._read("SELECT value FROM facts WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    async def set_fact(self, name: str, value: str) -> None:
        """Remember a fact; it is on disk when this returns."""
        await self._write("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    async def close(self) -> None:
        """Finish what is being written, and close."""
        while self._flushing is not None:
            await self._flushing
        await self._in_thread(self._db.close)
        self._thread.shutdown()

    async def _read(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        return await self._in_thread(lambda: self._db.execute(query, values).fetchall())

    async def _write(self, statement: str, values: tuple[object, ...]) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(((statement, values), done))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await asyncio.shield(done)

    async def _flush(self) -> None:
        """Write all that waits in one transaction, again until nothing waits."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    await self._in_thread(partial(self._commit, [write for write, _ in batch]))
                except sqlite3.Error as error:
                    for _, done in batch:
                        if not done.done():
                            done.set_exception(error)
                    continue
                for _, done in batch:
                    if not done.done():
                        done.set_result(None)
        finally:
            self._flushing = None

    def _commit(self, writes: list[_Write]) -> None:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for statement, values in writes:
                self._db.execute(statement, values)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _row(columns: tuple[Any, ...]) -> SessionRow:
    session, voucher, served, owed, claimed, settled, seen = columns
    standing = Standing(SignedVoucher.decode(voucher) if voucher else None, RowCounts.decode(served))
    return SessionRow(session, standing, owed, claimed, bool(settled), seen)
