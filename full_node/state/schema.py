"""The node's database: tables, and how connections are opened.

Durability: WAL with synchronous=FULL, so that a commit is on the disk when it returns. With NORMAL a power
cut could take back the last blocks, and a validator that then made other ones at the same heights would have
signed twice. A kill loses nothing either way.
"""

from __future__ import annotations

import os
import sqlite3
from functools import partial
from pathlib import Path

from dllm_protocol.schema_steps import Schema, bring_up_to_date
from full_node.sqlite_files import keep_old_version
from full_node.state.page import StoreDamaged

BUSY_TIMEOUT_MS = 5_000
WRITER_CACHE_KIB = 65_536

_VERSION_1 = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    # The tree. A version is a block height; version 0 is genesis.
    "CREATE TABLE versions (version INTEGER PRIMARY KEY, root BLOB NOT NULL, slot BLOB NOT NULL)",
    "CREATE TABLE pages (path BLOB, version INTEGER, page BLOB NOT NULL, PRIMARY KEY (path, version)) "
    "WITHOUT ROWID",
    "CREATE TABLE leaves (position BLOB, version INTEGER, key BLOB NOT NULL, value BLOB, "
    "PRIMARY KEY (position, version)) WITHOUT ROWID",
    # What version `since` made unreachable: a page by its path, a leaf by its position.
    "CREATE TABLE stale (since INTEGER, leaf INTEGER, place BLOB, version INTEGER, "
    "PRIMARY KEY (since, leaf, place, version)) WITHOUT ROWID",
    "CREATE TABLE blocks (height INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, header BLOB NOT NULL, "
    "block_id BLOB NOT NULL, seen_commit BLOB NOT NULL, size INTEGER NOT NULL, tx_count INTEGER NOT NULL, "
    "block BLOB NOT NULL, results BLOB NOT NULL)",
    "CREATE TABLE validator_sets (hash BLOB PRIMARY KEY, validators BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE txs (hash BLOB PRIMARY KEY, height INTEGER NOT NULL, place INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE events (name TEXT, value TEXT, height INTEGER, place INTEGER, "
    "PRIMARY KEY (name, value, height, place)) WITHOUT ROWID",
    "CREATE INDEX events_by_height ON events (height)",
)
SCHEMA = Schema("node database", 0x444C4C4E, (_VERSION_1,))  # "DLLN"


def open_writer(path: Path) -> sqlite3.Connection:
    """The one connection that writes; creates the file (0600) and the tables when they are missing.

    Raises:
        StoreDamaged: the file is no database, or broken.
        SchemaRefused: it is another program's, or a newer version's.
    """
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    connection = _connect(path)
    try:
        bring_up_to_date(connection, SCHEMA, str(path), partial(keep_old_version, path))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise StoreDamaged(f"{path} is not a readable node database: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection for queries; sees whole committed blocks only."""
    connection = _connect(path)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    # Connections move between threads; whoever uses one holds its lock.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return connection
