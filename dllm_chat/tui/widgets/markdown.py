"""Markdown that may come from a stranger."""

from __future__ import annotations

from textual.widgets import Markdown

from dllm_chat.sanitize import clean, clean_line
from dllm_chat.tui.safe_markdown import safe_parser


class SafeMarkdown(Markdown):
    """Cleans what it is given before it parses and what the parser made of it; asks before it opens a link."""

    DEFAULT_CSS = """
    SafeMarkdown {
        padding: 0;
        background: transparent;
        & > MarkdownParagraph { margin: 0 0 1 0; }
        & MarkdownBlockQuote > MarkdownParagraph { margin: 0; }
        & MarkdownFence { margin: 0 0 1 0; background: $panel; color: $foreground; }
        & MarkdownFence:light { background: $panel; color: $foreground; }
        & MarkdownFence:ansi { background: transparent; }
        & MarkdownH1 { content-align: left middle; color: $primary; text-style: bold; margin: 0 0 1 0; }
        & MarkdownH2 { color: $primary; text-style: bold; margin: 0 0 1 0; }
        & MarkdownH3 { color: $primary; text-style: bold; margin: 0 0 1 0; }
        & MarkdownBulletList { margin: 0 0 1 0; }
        & MarkdownOrderedList { margin: 0 0 1 0; }
        & MarkdownListItem MarkdownParagraph { margin: 0; }
        & MarkdownBlockQuote { margin: 0 0 1 0; }
        & MarkdownTable { margin: 0 0 1 0; }
        & MarkdownTable:light { background: transparent; }
        & MarkdownBlock:light > .code_inline { background: $warning 10%; color: $text-warning; }
    }
    """

    def __init__(self, text: str = "") -> None:
        """Show ``text``, cleaned."""
        super().__init__(clean(text), parser_factory=safe_parser, open_links=False)

    def on_markdown_link_clicked(self, event: Markdown.LinkClicked) -> None:
        """Links open only after the whole address was seen."""
        from dllm_chat.tui.screens.choices import link_choice

        event.stop()
        # Textual decodes %1b and the like: cleaned once more.
        address = clean_line(event.href, 2000)

        def answered(answer: str | None) -> None:
            if answer == "copy":
                self.app.copy_to_clipboard(address)
            elif answer == "open":
                self.app.open_url(address)

        self.app.push_screen(link_choice(address), answered)
