"""A new title for a conversation."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Input, Static

from dllm_chat.history.store import TITLE_LIMIT
from dllm_chat.tui.screens.dialog import Dialog


class RenameScreen(Dialog[str]):
    """One line of text; Enter takes it."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def compose(self) -> ComposeResult:
        with self.box("Rename the conversation"):
            yield Input(self._title, max_length=TITLE_LIMIT, select_on_focus=True)
            yield Static("enter keeps the new title", classes="hint", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        title = event.value.strip()
        self.dismiss(title or None)
