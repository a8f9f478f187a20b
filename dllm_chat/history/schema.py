"""The history's database: how it is opened, and how older versions of it become today's."""

from __future__ import annotations

import os
import sqlite3
from functools import partial
from pathlib import Path

from dllm_chat.paths import PRIVATE_FILE_MODE, make_private_folder
from dllm_protocol.errors import UsageRefused
from dllm_protocol.schema_steps import Schema, bring_up_to_date
from light_node.sqlite_files import keep_old_version, switch_to_wal

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

SCHEMA = Schema("history", 0x444C4C48, (_VERSION_1,))  # "DLLH"


def open_database(path: Path) -> sqlite3.Connection:
    """Open or create the history and bring it to today's version, in one transaction.

    The file is private (0600). Write-ahead logging with ``synchronous=NORMAL`` keeps every committed row over
    a killed process; a power cut may lose the last moments, never the file.

    Raises:
        BadHistory: the file is not a database.
        SchemaRefused: it is another program's, or from a newer version of this one.
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
    connection.execute("PRAGMA foreign_keys = ON")
    # What a person deletes is overwritten, not only unlinked.
    connection.execute("PRAGMA secure_delete = ON")
    bring_up_to_date(connection, SCHEMA, str(path), partial(keep_old_version, path))
    switch_to_wal(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
