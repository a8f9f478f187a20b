"""The database knows whose it is and how old it is."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dllm_chat.history import schema
from dllm_chat.history.schema import APPLICATION_ID, MIGRATIONS, BadHistory, open_database


def test_a_new_file_has_todays_version(tmp_path: Path) -> None:
    connection = open_database(tmp_path / "chats.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_older_version_is_brought_up_and_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "chats.db"
    old = open_database(path)
    old.execute("INSERT INTO conversations (title, created_s, updated_s) VALUES ('kept', 1, 1)")
    old.close()
    added = ("ALTER TABLE conversations ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0",)
    monkeypatch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, added))
    new = open_database(path)
    assert new.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    assert new.execute("SELECT title, pinned FROM conversations").fetchall() == [("kept", 0)]


def test_a_failed_migration_leaves_the_old_version_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "chats.db"
    open_database(path).close()
    broken = ("ALTER TABLE conversations ADD COLUMN pinned INTEGER", "INSERT INTO nowhere VALUES (1)")
    monkeypatch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, broken))
    with pytest.raises(BadHistory, match="nowhere"):
        open_database(path)
    plain = sqlite3.connect(path)
    assert plain.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert "pinned" not in [row[1] for row in plain.execute("PRAGMA table_info(conversations)")]


def test_a_newer_version_is_refused_by_both_numbers(tmp_path: Path) -> None:
    path = tmp_path / "chats.db"
    connection = open_database(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(BadHistory, match=rf"version 99; this program knows {len(MIGRATIONS)}"):
        open_database(path)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "chats.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    with pytest.raises(BadHistory, match="belongs to another program"):
        open_database(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "chats.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(BadHistory, match="cannot be used as a history"):
        open_database(path)
