"""The history's database: how it is opened, and how older versions of it become today's."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from dllm_chat.paths import PRIVATE_FILE_MODE, make_private_folder
from dllm_protocol.errors import UsageRefused

APPLICATION_ID = 0x444C4C48  # "DLLH": so that another program's database is not mistaken for ours
BUSY_TIMEOUT_MS = 5000


class BadHistory(UsageRefused):
    """The file is not a history that this program can read."""

    code = "E_HISTORY"


_VERSION_1 = (
    """CREATE TABLE conversations (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        title TEXT NOT NULL,
        created_s INTEGER NOT NULL,
        updated_s INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX conversations_by_update ON conversations (updated_s DESC, id DESC)",
    """CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation_id INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
        created_s INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('partial', 'complete', 'stopped', 'failed')),
        text TEXT NOT NULL,
        model TEXT NOT NULL,
        badge TEXT NOT NULL,
        providers TEXT NOT NULL,  -- space-separated bech32
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        cost_udllm INTEGER NOT NULL,
        fees_udllm INTEGER NOT NULL,
        receipt TEXT NOT NULL,
        notes TEXT NOT NULL,  -- one a line
        error_code TEXT NOT NULL,
        error_message TEXT NOT NULL,
        error_hint TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX messages_by_conversation ON messages (conversation_id, id)",
    """CREATE VIRTUAL TABLE messages_text USING fts5 (
        text, content='messages', content_rowid='id', tokenize='unicode61 remove_diacritics 2', prefix='2 3'
    )""",
    """CREATE TRIGGER message_added AFTER INSERT ON messages BEGIN
        INSERT INTO messages_text (rowid, text) VALUES (new.id, new.text);
    END""",
    """CREATE TRIGGER message_removed AFTER DELETE ON messages BEGIN
        INSERT INTO messages_text (messages_text, rowid, text) VALUES ('delete', old.id, old.text);
    END""",
    """CREATE TRIGGER message_changed AFTER UPDATE OF text ON messages BEGIN
        INSERT INTO messages_text (messages_text, rowid, text) VALUES ('delete', old.id, old.text);
        INSERT INTO messages_text (rowid, text) VALUES (new.id, new.text);
    END""",
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
)

MIGRATIONS: Sequence[Sequence[str]] = (_VERSION_1,)
"""Statement lists; running the first n makes version n. Never change one that was released: append."""


def open_database(path: Path) -> sqlite3.Connection:
    """Open or create the history and bring it to today's version, in one transaction.

    The file is private (0600). Write-ahead logging with ``synchronous=NORMAL`` keeps every committed row over
    a killed process; a power cut may lose the last moments, never the file.

    Raises:
        BadHistory: not a database, another program's, or from a newer version of this one.
    """
    make_private_folder(path.parent)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE_MODE))
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)
    try:
        _prepare(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise BadHistory(
            f"{path} cannot be used as a history: {error}", hint="move the file away; a new one is made"
        ) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    # What a person deletes is overwritten, not only unlinked.
    connection.execute("PRAGMA secure_delete = ON")
    if _version(connection, path) < len(MIGRATIONS):
        _migrate(connection, path)


def _version(connection: sqlite3.Connection, path: Path) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    owner = int(connection.execute("PRAGMA application_id").fetchone()[0])
    if version > len(MIGRATIONS):
        raise BadHistory(
            f"{path} is version {version}; this program knows {len(MIGRATIONS)}",
            hint="use the newer dllm-chat that wrote it",
        )
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if owner != APPLICATION_ID and (version or tables):
        raise BadHistory(
            f"{path} belongs to another program (application id {owner:#x}, ours is {APPLICATION_ID:#x})"
        )
    return version


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read again under the lock: another program may have been faster.
        version = _version(connection, path)
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
