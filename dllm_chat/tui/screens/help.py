"""All keys on one page."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from dllm_chat.tui.screens.dialog import Dialog

_KEYS = (
    ("enter", "send"),
    ("shift+enter, ctrl+j", "new line"),
    ("up, in an empty input", "bring back the last question"),
    ("esc", "stop the answer; what came is kept"),
    ("ctrl+n", "new conversation"),
    ("F2, ctrl+r", "rename the conversation"),
    ("ctrl+d", "delete the conversation"),
    ("ctrl+f", "search all conversations"),
    ("F3, ctrl+b", "list of conversations on or off"),
    ("ctrl+o", "choose the model"),
    ("ctrl+g", "contribute this machine: on or off"),
    ("ctrl+p", "palette: all commands, themes"),
    ("pageup, pagedown", "scroll the conversation"),
    ("ctrl+c twice, ctrl+q", "quit"),
)
_MEANINGS = (
    ("LOCAL", "this machine answered; tokens are play money"),
    ("NETWORK", "others' machines answered; tokens are real"),
    ("✓ verified", "your light node checked the newest header"),
    ("~ trusting", "trusted, the newest header is still unchecked"),
    ("✗ offline", "nobody answers; balances as last proved"),
)


class HelpScreen(Dialog[None]):
    """Keys, and what badges and states mean."""

    DEFAULT_CSS = """
    HelpScreen > #box { width: 76; }
    HelpScreen VerticalScroll { height: auto; max-height: 100%; scrollbar-size-vertical: 1; }
    """

    def compose(self) -> ComposeResult:
        lines = [_row(*row) for row in _KEYS] + [Content("")] + [_row(*row) for row in _MEANINGS]
        with self.box("Keys and meanings"), VerticalScroll():
            yield Static(Content("\n").join(lines), markup=False)

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()


def _row(name: str, meaning: str) -> Content:
    return Content.assemble((f"{name:<24}", "bold $primary"), meaning)
