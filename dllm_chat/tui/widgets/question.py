"""What the person asked, shown as they wrote it."""

from __future__ import annotations

from textual.widgets import Static

from dllm_chat.history.records import Message
from dllm_chat.sanitize import clean


class QuestionView(Static):
    """Plain text behind a bar."""

    DEFAULT_CSS = """
    QuestionView {
        height: auto;
        max-width: 120;
        margin: 0 0 1 0;
        padding: 0 1;
        border-left: outer $primary;
        background: $surface;
        color: $foreground;
    }
    """

    def __init__(self, message: Message) -> None:
        super().__init__(clean(message.text), markup=False)
        self.message_id = message.id
