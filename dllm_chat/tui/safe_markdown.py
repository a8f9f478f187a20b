"""Markdown from strangers: parsed, then cleaned once more, because parsing decodes entities.

``&#x202E;`` is six harmless characters before the parser and one that reverses the line after it; so the tokens
are filtered too. Raw HTML is not recognised at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dllm_chat.sanitize import clean, clean_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from markdown_it import MarkdownIt
    from markdown_it.rules_core import StateCore
    from markdown_it.token import Token

MAX_HIGHLIGHTED = 8_000
"""Characters of a code block that are coloured; longer ones would be coloured anew with every token."""
MAX_HREF = 2_000


def safe_parser() -> MarkdownIt:
    """A parser of GitHub's Markdown whose tokens hold no control and no bidi characters."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("gfm-like", {"html": False})
    parser.core.ruler.push("clean", _clean_tokens)
    return parser


def _clean_tokens(state: StateCore) -> None:
    _clean(state.tokens)


def _clean(tokens: Iterable[Token]) -> None:
    for token in tokens:
        token.content = clean(token.content)
        token.info = clean_line(token.info, 40)
        if token.type in ("fence", "code_block") and len(token.content) > MAX_HIGHLIGHTED:
            token.info = "text"
        for name, value in token.attrs.items():
            if isinstance(value, str):
                token.attrs[name] = clean_line(value, MAX_HREF)
        if token.children:
            _clean(token.children)
