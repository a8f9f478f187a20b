"""The top line: what this is, which conversation, what is in the wallet, which model, whose network."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from dllm_chat.sanitize import clean_line
from dllm_chat.tui.view import NetworkView, balance_words

_BADGE_STYLES = {"LOCAL": "bold reverse $warning", "NETWORK": "bold reverse $success"}


def badge_words(badge: str) -> Content:
    """The badge as a chip that also reads without colour."""
    return Content.styled(f" {badge} ", _BADGE_STYLES.get(badge, "reverse")) if badge else Content("")


class TopLine(Horizontal):
    """One row."""

    DEFAULT_CSS = """
    TopLine {
        height: 1;
        background: $panel;
        padding: 0 1;
        & Static { width: auto; height: 1; }
        & #brand { color: $primary; text-style: bold; margin-right: 2; }
        & #title { width: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }
        & #balance { color: $text-muted; margin-left: 2; }
        & #model { color: $text-muted; margin: 0 2; max-width: 28; text-wrap: nowrap; text-overflow: ellipsis; }
    }
    """

    def compose(self) -> ComposeResult:
        yield Static("◆ DLLM", id="brand")
        yield Static("", id="title", markup=False)
        yield Static("", id="balance", markup=False)
        yield Static("", id="model", markup=False)
        yield Static("", id="badge", markup=False)

    def show_title(self, title: str) -> None:
        """The conversation's."""
        self.query_one("#title", Static).update(clean_line(title) or "New conversation")

    def show_network(self, view: NetworkView) -> None:
        """Balance, model and badge."""
        self.query_one("#balance", Static).update(balance_words(view.balance))
        self.query_one("#model", Static).update(clean_line(view.model, 60))
        self.query_one("#badge", Static).update(badge_words(clean_line(view.badge, 12)))
