"""Databases come from any older version to today's, or stay what they were."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.schema_steps import Database, Schema, SchemaRefused, bring_up_to_date

FIRST = ("CREATE TABLE notes (text TEXT)",)
SECOND = ("ALTER TABLE notes ADD COLUMN length INTEGER", "UPDATE notes SET length = length(text)")
ONE = Schema("notebook", 0x4E4F5445, (FIRST,))
TWO = replace(ONE, steps=(FIRST, SECOND))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "notes.db", isolation_level=None)
    yield connection
    connection.close()


def _never(version: int) -> None:
    raise AssertionError(f"a copy of version {version} was asked for")


def _versions(database: sqlite3.Connection) -> tuple[int, int]:
    return tuple(
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id")
    )  # type: ignore[return-value]  # two of them


def test_a_new_file_runs_all_steps_and_needs_no_copy(database: sqlite3.Connection) -> None:
    assert bring_up_to_date(database, TWO, "notes.db", _never) == 0
    assert _versions(database) == (2, 0x4E4F5445)
    assert bring_up_to_date(database, TWO, "notes.db", _never) == 2


def test_an_older_file_is_copied_and_then_changed(database: sqlite3.Connection) -> None:
    bring_up_to_date(database, ONE, "notes.db", _never)
    database.execute("INSERT INTO notes VALUES ('seven..')")
    copied: list[int] = []
    assert bring_up_to_date(database, TWO, "notes.db", copied.append) == 1
    assert copied == [1]
    assert database.execute("SELECT * FROM notes").fetchall() == [("seven..", 7)]
    assert _versions(database)[0] == 2


def test_a_step_may_be_a_function(database: sqlite3.Connection) -> None:
    def shout(open_database: Database) -> None:
        open_database.execute("UPDATE notes SET text = upper(text)")

    bring_up_to_date(database, ONE, "notes.db", _never)
    database.execute("INSERT INTO notes VALUES ('quiet')")
    bring_up_to_date(database, replace(ONE, steps=(FIRST, shout)), "notes.db", lambda _version: None)
    assert database.execute("SELECT text FROM notes").fetchone() == ("QUIET",)


def test_a_failed_step_leaves_the_old_version_whole(database: sqlite3.Connection) -> None:
    bring_up_to_date(database, ONE, "notes.db", _never)
    database.execute("INSERT INTO notes VALUES ('kept')")
    broken = replace(ONE, steps=(FIRST, (*SECOND, "INSERT INTO nowhere VALUES (1)")))
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        bring_up_to_date(database, broken, "notes.db", lambda _version: None)
    assert _versions(database)[0] == 1
    assert database.execute("SELECT * FROM notes").fetchall() == [("kept",)]


def test_a_copy_that_fails_stops_the_upgrade(database: sqlite3.Connection) -> None:
    def full(_version: int) -> None:
        raise OSError("no space left")

    bring_up_to_date(database, ONE, "notes.db", _never)
    with pytest.raises(OSError, match="no space"):
        bring_up_to_date(database, TWO, "notes.db", full)
    assert _versions(database)[0] == 1
    assert not database.in_transaction


def test_a_newer_file_is_refused_with_both_numbers(database: sqlite3.Connection) -> None:
    bring_up_to_date(database, TWO, "notes.db", _never)
    with pytest.raises(SchemaRefused, match=r"notes\.db .* version 2, this program knows up to 1") as caught:
        bring_up_to_date(database, ONE, "notes.db", _never)
    assert "newer version" in caught.value.hint


@pytest.mark.parametrize(
    "theirs", ["CREATE TABLE theirs (x)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"]
)
def test_another_programs_file_is_left_alone(database: sqlite3.Connection, theirs: str) -> None:
    database.execute(theirs)
    with pytest.raises(SchemaRefused, match="no notebook of ours"):
        bring_up_to_date(database, ONE, "notes.db", _never)
    assert not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'notes'").fetchall()


def test_two_who_open_at_once_upgrade_once(tmp_path: Path, database: sqlite3.Connection) -> None:
    bring_up_to_date(database, ONE, "notes.db", _never)
    database.execute("INSERT INTO notes VALUES ('x')")
    other = sqlite3.connect(tmp_path / "notes.db", isolation_level=None)
    copies: list[int] = []

    class Slow:
        """Lets the other one upgrade between the first look and the lock."""

        def execute(self, sql: str, /) -> sqlite3.Cursor:
            if sql == "BEGIN IMMEDIATE":
                bring_up_to_date(other, TWO, "notes.db", copies.append)
            return database.execute(sql)

    assert bring_up_to_date(Slow(), TWO, "notes.db", copies.append) == 2
    assert copies == [1]
    other.close()
