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

MAX_RECENT = 50
"""Conversations that are listed before something is typed."""


class SearchScreen(Dialog[SearchHit]):
    """Words above, finds below, the latest conversations while there are no words; the result is the chosen one."""

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

    def on_mount(self) -> None:
        self._show_recent()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if not event.value.strip():
            self._show_recent()
            return
        hits = self._history.search(event.value)
        found = f"{count(len(hits), 'find')}, ↓ and enter to open" if hits else "nothing found"
        self._show(hits, [self._line(hit) for hit in hits], found)

    def _show_recent(self) -> None:
        recent = self._history.conversations(MAX_RECENT)
        hits = [SearchHit(one.id, None, one.title, None, one.updated_s, ()) for one in recent]
        lines = [self._head(one.title, count(one.message_count, "message"), one.updated_s) for one in recent]
        found = "the latest, ↓ and enter to open" if recent else "There are no conversations yet."
        self._show(hits, lines, found)

    def _show(self, hits: list[SearchHit], lines: list[Content], summary: str) -> None:
        self._hits = hits
        options = self.query_one("#finds", OptionList)
        options.clear_options()
        options.add_options([Option(line) for line in lines])
        options.highlighted = 0 if hits else None
        self.query_one("#summary", Static).update(summary)

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
        head = self._head(hit.title, who, hit.updated_s)
        if hit.message_id is None:
            return head
        snippet = Content.assemble(
            *[
                (clean_line(text), "bold underline $primary" if matched else "")
                for text, matched in hit.snippet
            ]
        )
        return Content("\n").join([head, Content.assemble("  ", snippet)])

    def _head(self, title: str, what: str, updated_s: int) -> Content:
        about = f"  {what} · {age(updated_s, self._now_s)}"
        return Content.assemble((clean_line(title, 50) or "untitled", "bold"), (about, "dim"))
