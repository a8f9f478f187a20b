"""The database knows whose it is and how old it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from dllm_chat.history.schema import SCHEMA, BadHistory, open_database


def test_a_new_file_has_todays_version(tmp_path: Path) -> None:
    connection = open_database(tmp_path / "chats.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA.version,)
    assert connection.execute("PRAGMA application_id").fetchone() == (SCHEMA.application_id,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "chats.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(BadHistory, match="cannot be used as a history"):
        open_database(path)
