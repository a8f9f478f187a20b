"""`dllm backup` as it is typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dllm_chat.paths import find_paths, write_private
from tests.dllm_chat.cli.conftest import Ran


def test_a_home_goes_into_a_file_and_back(
    dllm: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = find_paths()
    write_private(home.receipts / "a.receipt", b"receipt")
    write_private(home.data / "worker" / "keys.json", b"secret")
    made = dllm("backup", "create", tmp_path / "b", "--json").data
    assert made["files"] == ["data/receipts/a.receipt"]
    assert made["left_out"] == ["data/worker/keys.json"]
    shown = dllm("backup", "show", tmp_path / "b", "--json").data
    assert (shown["files"], shown["made_ms"]) == (made["files"], made["made_ms"])
    assert "data/receipts/a.receipt  7" in dllm("backup", "show", tmp_path / "b").out

    refused = dllm("backup", "restore", tmp_path / "b", "--json")
    assert (refused.code, refused.error["code"]) == (2, "E_BACKUP_PLACE")
    monkeypatch.setenv("DLLM_HOME", str(tmp_path / "new"))
    restored = dllm("backup", "restore", tmp_path / "b")
    assert restored.code == 0, restored.err
    assert "put its keys.json back" in restored.out
    assert (find_paths().receipts / "a.receipt").read_bytes() == b"receipt"


def test_what_is_no_backup_is_refused(dllm: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"something else")
    shown = dllm("backup", "show", tmp_path / "b", "--json")
    assert (shown.code, shown.error["code"]) == (8, "E_BACKUP")
    missing = dllm("backup", "restore", tmp_path / "nowhere", "--json")
    assert (missing.code, missing.error["code"]) == (2, "E_BACKUP_PLACE")
