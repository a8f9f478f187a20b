"""Why the network did not open, and what to do; it stays until that changes."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from dllm_chat.sanitize import clean_line
from dllm_chat.tui.view import Failure


def failure_words(code: str, message: str, hint: str) -> Content:
    """Code and message, and under them the hint if there is one."""
    parts = [Content.assemble((clean_line(code, 40), "bold $text-error"), "  ", clean_line(message, 1000))]
    if hint:
        parts.append(Content(f"→ {clean_line(hint, 1000)}"))
    return Content("\n").join(parts)


class FailureView(Static):
    """Below the transcript, so that it is seen whichever conversation is open."""

    DEFAULT_CSS = """
    FailureView {
        display: none;
        height: auto;
        max-height: 33%;
        max-width: 120;
        margin: 0 2 1 2;
        padding: 0 1;
        border-left: outer $error;
        background: $error-muted 40%;
        &.-shown { display: block; }
    }
    """

    def __init__(self) -> None:
        super().__init__("", markup=False)

    def show(self, failure: Failure | None) -> None:
        """Draw it; None: nothing failed."""
        self.set_class(failure is not None, "-shown")
        if failure is not None:
            self.update(failure_words(failure.code, failure.message, failure.hint))
