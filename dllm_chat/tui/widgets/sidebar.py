"""The list of conversations, newest first."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from dllm_chat.history.records import Conversation
from dllm_chat.sanitize import clean_line
from dllm_chat.tui.wording import age, count


class Sidebar(Vertical):
    """Titles with time and length; choosing one opens it."""

    DEFAULT_CSS = """
    Sidebar {
        width: 30;
        background: $surface;
        padding: 1 0 0 0;
        & > #sidebar-title { color: $text-muted; text-style: bold; padding: 0 2 1 2; }
        & > #sidebar-empty { color: $text-muted; padding: 0 2; display: none; }
        & > OptionList {
            height: 1fr;
            background: $surface;
            border: none;
            padding: 0 1;
            scrollbar-size-vertical: 1;
            text-wrap: nowrap;
            text-overflow: ellipsis;
            &:focus { border: none; background-tint: transparent; }
            & > .option-list--option { padding: 0 1; }
            & > .option-list--option-highlighted { background: $panel; color: $foreground; }
            &:focus > .option-list--option-highlighted { background: $primary 30%; color: $foreground; }
        }
        &.-empty > OptionList { display: none; }
        &.-empty > #sidebar-empty { display: block; }
    }
    """

    class Chosen(Message):
        """The person wants to see a conversation."""

        def __init__(self, conversation_id: int) -> None:
            super().__init__()
            self.conversation_id = conversation_id

    def compose(self) -> ComposeResult:
        yield Static("Conversations", id="sidebar-title")
        yield Static("They will be listed here.", id="sidebar-empty")
        yield OptionList(id="conversations", markup=False)

    def show(self, conversations: Sequence[Conversation], current: int | None, now_s: float) -> None:
        """List them.

        Args:
            conversations: newest first.
            current: the one on screen.
            now_s: Unix time, for "yesterday".
        """
        self.set_class(not conversations, "-empty")
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options(
            [Option(_line(one, one.id == current, now_s), id=str(one.id)) for one in conversations]
        )
        ids = [one.id for one in conversations]
        options.highlighted = ids.index(current) if current in ids else None

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option_id is not None:
            self.post_message(self.Chosen(int(event.option_id)))


def _line(conversation: Conversation, is_current: bool, now_s: float) -> Content:
    title = clean_line(conversation.title, 60) or "untitled"
    under = f"{age(conversation.updated_s, now_s)} · {count(conversation.message_count, 'message')}"
    mark = "▸ " if is_current else "  "
    return Content.assemble(
        (mark, "$primary bold"), (title, "bold" if is_current else ""), ("\n  " + under, "dim")
    )
