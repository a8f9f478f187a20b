"""Where the person writes: Enter sends, Shift+Enter or Ctrl+J begins a line."""

from __future__ import annotations

from textual import events
from textual.message import Message
from textual.widgets import TextArea

MAX_CHARACTERS = 200_000
_NEWLINE_KEYS = {"shift+enter", "ctrl+j", "alt+enter"}


class Prompt(TextArea):
    """A text area that grows with its text up to a third of the screen."""

    DEFAULT_CSS = """
    Prompt {
        height: auto;
        min-height: 3;
        max-height: 33%;
        border: round $border;
        background: $background;
        padding: 0 1;
        margin: 0 1;
        scrollbar-size-vertical: 1;
        border-title-color: $text-muted;
        border-subtitle-color: $text-muted;
        &:focus { border: round $primary; background: $background; }
        &:focus .text-area--cursor-line { background: transparent; }
        & .text-area--cursor-line { background: transparent; }
        & .text-area--placeholder { color: $text-muted; }
    }
    """

    class Submitted(Message):
        """The person wants this sent; the prompt keeps its text until it is accepted."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class RecallWanted(Message):
        """The person pressed Up in an empty prompt: bring back the last question."""

    def __init__(self) -> None:
        super().__init__(
            placeholder="Ask anything",
            soft_wrap=True,
            show_line_numbers=False,
            tab_behavior="focus",
            highlight_cursor_line=False,
            id="prompt",
        )

    async def _on_key(self, event: events.Key) -> None:
        if event.key in _NEWLINE_KEYS:
            self._instead(event)
            start, end = self.selection
            self._replace_via_keyboard("\n", start, end)
        elif event.key == "enter":
            self._instead(event)
            if self.text.strip():
                self.post_message(self.Submitted(self.text[:MAX_CHARACTERS]))
        elif event.key == "up" and not self.text:
            self._instead(event)
            self.post_message(self.RecallWanted())
        else:
            await super()._on_key(event)

    @staticmethod
    def _instead(event: events.Key) -> None:
        event.stop()
        event.prevent_default()
