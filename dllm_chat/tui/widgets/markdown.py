"""Markdown that may come from a stranger."""

from __future__ import annotations

from textual.widgets import Markdown

from dllm_chat.sanitize import clean
from dllm_chat.tui.safe_markdown import safe_parser


class SafeMarkdown(Markdown):
    """Cleans what it is given before it parses and what the parser made of it; opens no links by itself."""

    DEFAULT_CSS = """
    SafeMarkdown {
        padding: 0;
        background: transparent;
        & > MarkdownParagraph { margin: 0 0 1 0; }
        & MarkdownBlockQuote > MarkdownParagraph { margin: 0; }
        & MarkdownFence { margin: 0 0 1 0; background: $panel; color: $foreground; }
        & MarkdownFence:ansi { background: transparent; }
        & MarkdownH1 { content-align: left middle; color: $primary; text-style: bold; margin: 0 0 1 0; }
        & MarkdownH2 { color: $primary; text-style: bold; margin: 0 0 1 0; }
        & MarkdownH3 { color: $primary; text-style: bold; margin: 0 0 1 0; }
        & MarkdownBulletList { margin: 0 0 1 0; }
        & MarkdownOrderedList { margin: 0 0 1 0; }
        & MarkdownListItem MarkdownParagraph { margin: 0; }
        & MarkdownBlockQuote { margin: 0 0 1 0; }
        & MarkdownTable { margin: 0 0 1 0; }
    }
    """

    def __init__(self, text: str = "") -> None:
        """Show ``text``, cleaned."""
        super().__init__(clean(text), parser_factory=safe_parser, open_links=False)
