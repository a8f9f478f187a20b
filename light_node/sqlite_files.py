"""SQLite files that several processes use at once: write-ahead logging, and whole copies while they are in use."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

BUSY_TIMEOUT_S = 30.0
WAL_TRIES = 50
WAL_PAUSE_S = 0.02


def switch_to_wal(database: sqlite3.Connection) -> None:
    """Turns write-ahead logging on; two processes that do it at once do not wait for each other by themselves.

    Raises:
        sqlite3.OperationalError: still locked after `WAL_TRIES`.
    """
    for tries_left in range(WAL_TRIES - 1, -1, -1):
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if not tries_left:
                raise
            time.sleep(WAL_PAUSE_S)
        else:
            return


def copy_database(source: Path, target: Path) -> None:
    """Writes a consistent copy of a database (mode 0600), whoever reads or writes it meanwhile; replaces `target`.

    The copy is one plain file without a log beside it, durable on return.

    Raises:
        sqlite3.Error: `source` is not a database, or stays locked.
        OSError: `target` cannot be written.
    """
    draft = target.with_name(f".{target.name}.new")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    try:
        with (
            contextlib.closing(sqlite3.connect(source, timeout=BUSY_TIMEOUT_S)) as reading,
            contextlib.closing(sqlite3.connect(draft)) as writing,
        ):
            reading.execute("PRAGMA query_only = ON")
            reading.backup(writing)
            writing.execute("PRAGMA journal_mode = DELETE")
        descriptor = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def keep_old_version(path: Path, version: int) -> Path:
    """Copies a database as it was before an upgrade to ``NAME.vVERSION`` beside it; returns the copy's path."""
    kept = path.with_name(f"{path.name}.v{version}")
    copy_database(path, kept)
    return kept
