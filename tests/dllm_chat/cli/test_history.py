"""What a stranger writes into a memo runs nowhere."""

import csv
from pathlib import Path

import pytest

from dllm_chat.cli.history import COLUMNS, _harmless, _name, _text, _write_csv
from dllm_protocol.actions import CloseSession, Transfer
from dllm_protocol.errors import UsageRefused

ENTRY = {
    "time": "2026-01-01T00:00:00Z",
    "height": 3,
    "direction": "in",
    "kind": "transfer",
    "amount_udllm": 5,
    "fee_udllm": 0,
    "other": "local1x",
    "memo": "=HYPERLINK(1)",
    "ok": True,
    "tx_hash": "AB",
    "proved": True,
}


def test_a_file_for_spreadsheets_holds_no_formula(tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    _write_csv(file, [ENTRY])
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert (rows[0]["memo"], rows[0]["amount_udllm"]) == ("'=HYPERLINK(1)", "5")
    assert _harmless(-5) == -5


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageRefused, match="cannot be written"):
        _write_csv(tmp_path / "file" / "history.csv", [ENTRY])


def test_actions_are_named_in_words() -> None:
    assert _name(Transfer(b"a" * 20, 1)) == "transfer"
    assert _name(CloseSession(bytes(32), None, (), ())) == "close session"


def test_what_is_missing_is_said() -> None:
    assert "0 of the 7 that you sent" in _text([ENTRY], 0, 7)
    assert "all that you ever sent" in _text([ENTRY], 7, 7)
    assert _text([], 0, 0) == "no transactions yet"
