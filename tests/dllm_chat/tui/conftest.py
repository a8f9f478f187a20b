"""What keeps screens the same from run to run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dllm_chat.history.store import History
from tests.dllm_chat.tui.doubles import NOW_S


@pytest.fixture(autouse=True)
def settled_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """UTC, colours, no blinking cursor."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    for name in ("NO_COLOR", "COLORTERM", "TEXTUAL_THEME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("textual.widgets.TextArea.cursor_blink", False)
    monkeypatch.setattr("textual.widgets.Input.cursor_blink", False)
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """An empty history whose clock stands still."""
    history = History(tmp_path / "chats.db", clock=lambda: NOW_S)
    yield history
    history.close()
