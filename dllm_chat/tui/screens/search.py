"""Finds words in all conversations."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from dllm_chat.history.records import Role, SearchHit
from dllm_chat.history.store import History
from dllm_chat.sanitize import clean_line
from dllm_chat.tui.screens.dialog import Dialog
from dllm_chat.tui.wording import age, count


class SearchScreen(Dialog[SearchHit]):
    """Words above, finds below; the result is the chosen one."""

    DEFAULT_CSS = """
    SearchScreen > #box { width: 90; height: 85%; }
    SearchScreen #finds {
        height: 1fr; max-height: 100%; text-wrap: nowrap; text-overflow: ellipsis;
        & > .option-list--option-highlighted { background: $primary 20%; }
    }
    SearchScreen #summary { color: $text-muted; margin-bottom: 1; }
    """

    def __init__(self, history: History, now_s: float) -> None:
        super().__init__()
        self._history = history
        self._now_s = now_s
        self._hits: list[SearchHit] = []

    def compose(self) -> ComposeResult:
        with self.box("Search all conversations"):
            yield Input(placeholder="words, all of which must occur")
            yield Static("", id="summary", markup=False)
            yield OptionList(id="finds", markup=False)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._hits = self._history.search(event.value)
        options = self.query_one("#finds", OptionList)
        options.clear_options()
        options.add_options([Option(self._line(hit)) for hit in self._hits])
        options.highlighted = 0 if self._hits else None
        found = f"{count(len(self._hits), 'find')}, ↓ and enter to open" if self._hits else "nothing found"
        self.query_one("#summary", Static).update(found if event.value.strip() else "")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        highlighted = self.query_one("#finds", OptionList).highlighted
        if highlighted is not None:
            self.dismiss(self._hits[highlighted])

    def key_down(self) -> None:
        """From the words to the finds."""
        self.query_one("#finds", OptionList).focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(self._hits[event.option_index])

    def _line(self, hit: SearchHit) -> Content:
        who = {Role.USER: "you", Role.ASSISTANT: "reply", None: "title"}[hit.role]
        head = Content.assemble(
            (clean_line(hit.title, 50) or "untitled", "bold"),
            (f"  {who} · {age(hit.updated_s, self._now_s)}", "dim"),
        )
        if hit.message_id is None:
            return head
        snippet = Content.assemble(
            *[
                (clean_line(text), "bold underline $primary" if matched else "")
                for text, matched in hit.snippet
            ]
        )
        return Content("\n").join([head, Content.assemble("  ", snippet)])
