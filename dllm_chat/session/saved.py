"""Sessions on disk: what must survive so that no voucher number is ever signed twice and no deposit is forgotten.

One SQLite file a home. A session in use is locked by its process through the kernel (flock), so that two terminals
never pay from one ledger. Writes survive a killed process; after a power cut the last vouchers may be missing,
which costs at most the session's remaining usefulness: it is then closed with what the provider holds.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from dllm_chat.paths import LockBusy, file_lock, make_private_folder
from dllm_protocol.encoding import (
    ADDRESS,
    BOOL,
    HASH,
    U32,
    U64,
    UDLLM,
    ListOf,
    Nested,
    Record,
    record,
    wire,
)
from dllm_protocol.records import Route, RouteStage
from dllm_protocol.schema_steps import Schema, bring_up_to_date
from dllm_protocol.session.ledger import LedgerState
from dllm_protocol.voucher import CHAIN_ID
from light_node.sqlite_files import keep_old_version, switch_to_wal

_VERSION_1 = (
    """CREATE TABLE session (
        id BLOB PRIMARY KEY, chain_id TEXT NOT NULL, account BLOB NOT NULL, closed INTEGER NOT NULL,
        record BLOB NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE opening (
        id BLOB PRIMARY KEY, chain_id TEXT NOT NULL, account BLOB NOT NULL, key_index INTEGER NOT NULL
    ) WITHOUT ROWID""",
)
SCHEMA = Schema("session store", 0x444C4C43, (_VERSION_1,))  # "DLLC"
BUSY_MS = 5_000


@record
class SavedSession(Record):
    """One session of ours."""

    chain_id: str = wire(1, CHAIN_ID)
    account: bytes = wire(2, ADDRESS)
    key_index: int = wire(3, U64)
    """Index of the session key's derivation path."""
    route: Route = wire(4, Nested(Route))
    deposit_udllm: int = wire(5, UDLLM)
    community_share_ppm: int = wire(6, U32)
    ledger: LedgerState = wire(7, Nested(LedgerState))
    failed: tuple[bytes, ...] = wire(8, ListOf(ADDRESS, 128))
    """Providers of the route that failed us; not used again in this session."""
    closed: int = wire(9, BOOL)
    header_hash: bytes = wire(10, HASH)
    """Verified header at which the session was first proved."""

    @property
    def stages_left(self) -> tuple[RouteStage, ...]:
        """Its stages without those who failed in it: the standby in the first place where it is alone."""
        return tuple(_stage_left(stage, self.failed) for stage in self.route.stages)


def _stage_left(stage: RouteStage, failed: Collection[bytes]) -> RouteStage:
    if stage.standby is None or stage.standby.provider in failed:
        return replace(stage, standby=None)
    return RouteStage(stage.standby, None) if stage.stage.provider in failed else stage


class SessionStore:
    """All sessions of a home."""

    def __init__(self, folder: Path) -> None:
        """Open or create ``sessions.db`` in a private folder.

        Raises:
            SchemaRefused: another program's file, or a newer version's.
        """
        self._folder = make_private_folder(folder)
        path = folder / "sessions.db"
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None)
        try:
            bring_up_to_date(self._db, SCHEMA, str(path), partial(keep_old_version, path))
            switch_to_wal(self._db)
            self._db.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            self._db.close()
            raise

    def begin(self, session_id: bytes, chain_id: str, account: bytes, key_index: int) -> None:
        """Note that a session is about to be opened: should we die before `save`, its deposit is not forgotten."""
        self._db.execute(
            "INSERT OR REPLACE INTO opening VALUES (?, ?, ?, ?)", (session_id, chain_id, account, key_index)
        )

    def forget(self, session_id: bytes) -> None:
        """The session was not opened after all."""
        self._db.execute("DELETE FROM opening WHERE id=?", (session_id,))

    def begun(self, chain_id: str, account: bytes) -> list[tuple[bytes, int]]:
        """(session id, key index) of sessions that were about to be opened and never saved."""
        rows = self._db.execute(
            "SELECT id, key_index FROM opening WHERE chain_id=? AND account=? ORDER BY key_index",
            (chain_id, account),
        ).fetchall()
        return [(row[0], row[1]) for row in rows]

    def save(self, session: SavedSession) -> None:
        """Write a session; on return it survives a kill."""
        self._db.execute(
            "INSERT INTO session VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET closed=excluded.closed, record=excluded.record",
            (session.route.session, session.chain_id, session.account, session.closed, session.encode()),
        )
        if session.ledger.n == 0:
            self.forget(session.route.session)

    def load(self, session_id: bytes) -> SavedSession | None:
        """The session of that id, as last saved by any process."""
        row = self._db.execute("SELECT record FROM session WHERE id=?", (session_id,)).fetchone()
        return SavedSession.decode(row[0]) if row else None

    def all(self, chain_id: str, account: bytes, *, open_only: bool) -> list[SavedSession]:
        """Sessions of an account on a chain."""
        rows = self._db.execute(
            "SELECT record FROM session WHERE chain_id=? AND account=? AND closed<=? ORDER BY id",
            (chain_id, account, 0 if open_only else 1),
        ).fetchall()
        return [SavedSession.decode(row[0]) for row in rows]

    @contextlib.contextmanager
    def claim(self, session_id: bytes) -> Iterator[bool]:
        """Hold the session for this process; yields False where another process holds it."""
        path = self._folder / "locks" / session_id.hex()
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(file_lock(path, timeout_s=0.0))
            except LockBusy:
                yield False
                return
            yield True

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
