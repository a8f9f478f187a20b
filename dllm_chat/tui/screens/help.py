"""All keys on one page."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Grid, VerticalScroll
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
    ("NETWORK", "others' machines answered, for its tokens"),
    ("✓ verified", "your light node checked the newest header"),
    ("~ trusting", "trusted, the newest header is still unchecked"),
    ("✗ offline", "nobody answers; balances as last proved"),
    ("✗ locked", "no key may pay yet; the hint says how"),
)


class HelpScreen(Dialog[None]):
    """Keys, and what badges and states mean."""

    DEFAULT_CSS = """
    HelpScreen > #box { width: 76; }
    HelpScreen VerticalScroll { height: auto; max-height: 100%; scrollbar-size-vertical: 1; }
    HelpScreen Grid { grid-size: 2; grid-columns: 24 1fr; grid-rows: auto; height: auto; }
    HelpScreen .name { color: $primary; text-style: bold; padding-right: 1; }
    """

    def compose(self) -> ComposeResult:
        with self.box("Keys and meanings"), VerticalScroll(), Grid():
            for name, meaning in (*_KEYS, ("", ""), *_MEANINGS):
                yield Static(name, classes="name", markup=False)
                yield Static(meaning, markup=False)

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()
        self.call_after_refresh(self._say_what_scrolls)

    def on_resize(self) -> None:
        """More or less of it fits now."""
        self.call_after_refresh(self._say_what_scrolls)

    def _say_what_scrolls(self) -> None:
        is_cut = self.query_one(VerticalScroll).max_scroll_y > 0
        self.query_one("#box").border_subtitle = "↑↓ scrolls · esc back" if is_cut else "esc back"
