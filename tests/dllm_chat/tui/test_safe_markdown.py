"""Nothing that commands a terminal or reorders a line gets through the parser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it.token import Token

from dllm_chat.sanitize import clean
from dllm_chat.tui.safe_markdown import MAX_HIGHLIGHTED, safe_parser

HOSTILE = {
    "clipboard": "\x1b]52;c;ZXZpbA==\x1b\\",
    "clipboard, C1": "\x9d52;c;ZXZpbA==\x9c",
    "window title": "\x1b]0;your wallet\x07",
    "clear screen": "\x1b[2J\x1b[H",
    "C1 CSI": "\x9b2J",
    "hyperlink": "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "device query": "\x1b[c\x05",
    "carriage return": "price 9\rprice 1",
    "backspace": "no\b\byes",
    "bidi override": "\u202etxt.exe",
    "bidi isolate": "\u2066a\u2069",
    "entity, bidi": "&#x202E;txt.exe and &#8238; and &#x2066;",
    "entity, escape": "&#27;[2J &#x1b;[2J &#x9b;2J",
    "entity in code text": "`&#x202E;`",
    "entity in link": '[a](https://x.example/&#x202E;b "&#x202E;title")',
    "entity in image": "![&#x202E;alt](https://x.example/&#x2066;b)",
    "entity in fence info": "```py&#x202E;thon\ncode\n```",
    "reference": "[a]\n\n[a]: https://x.example/&#x202E; '&#x2067;'",
    "table": "| &#x202E;a | b |\n|---|---|\n| \x1b[2J | &#x202A; |",
    "heading": "# &#x202E;x",
    "quoted list": "> - &#x202E;x\n> 1. \u202d",
    "tags": "a\U000e0041\U000e0042",
    "line separator": "a\u2028b\u2029c",
    "html": "<b onclick=x>&#x202E;</b>\n\n<script>\x1b[2J</script>",
}


def strings(tokens: Iterable[Token]) -> Iterator[str]:
    """Every text that a renderer could show or act on."""
    for token in tokens:
        yield from (token.content, token.info)
        yield from (value for value in token.attrs.values() if isinstance(value, str))
        yield from strings(token.children or [])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_harmless_after_parsing(name: str) -> None:
    tokens = safe_parser().parse(clean(HOSTILE[name]))
    for text in strings(tokens):
        assert text == clean(text)


@given(st.text(alphabet=st.sampled_from("&#x202E;27;\x1b\u202e[]()`*_~|<>!\n- a1\"'")))
def test_no_mixture_gets_through(text: str) -> None:
    for found in strings(safe_parser().parse(text)):
        assert found == clean(found)


def test_html_is_text() -> None:
    tokens = safe_parser().parse("<b>bold</b>")
    assert not [token for token in tokens if token.type == "html_block"]
    assert "<b>" in "".join(strings(tokens))


def test_ordinary_markdown_stays_what_it_was() -> None:
    from markdown_it import MarkdownIt

    text = "# A\n\n- *b* `c` [d](https://e.example)\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n```py\nz = 1\n```\n"
    ordinary = MarkdownIt("gfm-like", {"html": False}).parse(text)
    assert [(t.type, t.content, t.attrs) for t in safe_parser().parse(text)] == [
        (t.type, t.content, t.attrs) for t in ordinary
    ]


def test_a_very_long_code_block_is_not_coloured() -> None:
    short, long = (
        safe_parser().parse(f"```python\n{'x' * length}\n```")[0].info for length in (10, MAX_HIGHLIGHTED + 1)
    )
    assert (short, long) == ("python", "text")
