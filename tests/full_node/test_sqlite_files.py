"""Copies of databases in use are whole, private and there entirely or not at all."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from full_node.sqlite_files import copy_database, keep_old_version


def _make(path: Path, rows: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE n (x)")
    connection.executemany("INSERT INTO n VALUES (?)", [(number,) for number in range(rows)])
    return connection


def _count(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as look:
        return int(look.execute("SELECT count(*) FROM n").fetchone()[0])


def test_a_copy_holds_what_was_committed_and_not_what_is_being_written(tmp_path: Path) -> None:
    writer = _make(tmp_path / "a.db", 100)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM n")
    copy_database(tmp_path / "a.db", tmp_path / "copy.db")
    writer.execute("COMMIT")
    assert _count(tmp_path / "copy.db") == 100
    assert _count(tmp_path / "a.db") == 0
    copy_database(tmp_path / "a.db", tmp_path / "copy.db")
    assert _count(tmp_path / "copy.db") == 0
    writer.close()


def test_a_copy_is_one_private_file(tmp_path: Path) -> None:
    writer = _make(tmp_path / "a.db", 1)
    kept = keep_old_version(tmp_path / "a.db", 3)
    writer.close()
    assert kept == tmp_path / "a.db.v3"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in sorted(tmp_path.iterdir())] == ["a.db", "a.db.v3"]


def test_what_is_no_database_leaves_no_copy(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        copy_database(tmp_path / "a.db", tmp_path / "copy.db")
    assert [one.name for one in tmp_path.iterdir()] == ["a.db"]
