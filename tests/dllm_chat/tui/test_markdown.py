"""What is written can be read, in the dark theme and in the light one."""

from __future__ import annotations

import pytest
from rich.segment import Segment
from textual.app import App
from textual.color import Color
from textual.geometry import Region
from textual.widget import Widget
from textual.widgets import Label
from textual.widgets.markdown import MarkdownFence

from dllm_chat.tui.themes import DARK, LIGHT
from dllm_chat.tui.widgets.markdown import SafeMarkdown

READABLE = 4.5
"""Contrast that WCAG 2.1 asks of text (1.4.3)."""
TEXT = """Say `dllm ask` once.

```python
def cost(rows: int) -> int:  # rounded up
    return "many" and rows
```

```
plain
```

| a | b |
|---|---|
| c | d |
"""
THEMES = pytest.mark.parametrize("theme", [DARK, LIGHT], ids=["dark", "light"])


def _app(theme: object) -> App[None]:
    class Shown(App[None]):
        def compose(self):  # type: ignore[no-untyped-def]  # one widget
            yield SafeMarkdown(TEXT)

    app = Shown()
    app.register_theme(theme)  # type: ignore[arg-type]  # one of ours
    app.theme = theme.name  # type: ignore[attr-defined]  # one of ours
    return app


def _written(widget: Widget) -> list[Segment]:
    strips = widget.render_lines(Region(0, 0, *widget.outer_size))
    return [segment for strip in strips for segment in strip if segment.text.strip()]


def _colours(segment: Segment) -> tuple[Color, Color]:
    assert segment.style is not None and segment.style.color is not None and segment.style.bgcolor is not None
    return Color.from_rich_color(segment.style.color), Color.from_rich_color(segment.style.bgcolor)


def _luminance(colour: Color) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour.normalized]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(segment: Segment) -> float:
    darker, lighter = sorted(map(_luminance, _colours(segment)))
    return (lighter + 0.05) / (darker + 0.05)


@THEMES
async def test_code_stands_out_from_its_block(theme: object) -> None:
    app = _app(theme)
    async with app.run_test(size=(80, 24)):
        written = [one for fence in app.query(MarkdownFence) for one in _written(fence.query_one(Label))]
        assert {"def", "plain"} <= {segment.text.strip() for segment in written}
        assert min(map(_contrast, written)) >= READABLE
        panel = Color.parse(app.theme_variables["panel"])
        assert {_colours(segment)[1] for segment in written} == {panel}


@THEMES
async def test_inline_code_reads_and_is_no_error(theme: object) -> None:
    app = _app(theme)
    async with app.run_test(size=(80, 24)):
        written = _written(app.query("MarkdownParagraph").first())
        (code,) = [segment for segment in written if segment.text == "dllm ask"]
        assert _contrast(code) >= READABLE
        wanted = Color.parse(app.theme_variables["warning"]).hsl.h
        assert [colour.hsl.h for colour in _colours(code)] == pytest.approx([wanted] * 2, abs=0.02)


@THEMES
async def test_a_table_has_the_background_of_the_text_around_it(theme: object) -> None:
    app = _app(theme)
    async with app.run_test(size=(80, 24)):
        assert app.query_one("MarkdownTable").styles.background.a == 0
