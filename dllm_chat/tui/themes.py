"""Our two colour themes; all that Textual ships can be chosen beside them, the terminal's own colours too."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="dllm-dark",
    primary="#6cb6ff",
    secondary="#b392f0",
    accent="#ffb454",
    success="#7fd88f",
    warning="#ffb454",
    error="#ff7b72",
    foreground="#d5dae3",
    background="#0e1117",
    surface="#141922",
    panel="#1b222d",
    dark=True,
    variables={
        "border": "#2e3846",
        "border-blurred": "#232b37",
        "footer-key-foreground": "#6cb6ff",
        "footer-description-foreground": "#8b95a5",
        "footer-background": "#0e1117",
        "input-selection-background": "#6cb6ff 30%",
        "block-cursor-text-style": "none",
        "scrollbar": "#2e3846",
        "scrollbar-background": "#0e1117",
        "scrollbar-corner-color": "#0e1117",
    },
)
LIGHT = Theme(
    name="dllm-light",
    primary="#0b62c4",
    secondary="#6f42c1",
    accent="#b25e00",
    success="#1a7f37",
    warning="#9a5b00",
    error="#c4281c",
    foreground="#20262e",
    background="#fcfbf8",
    surface="#f4f2ec",
    panel="#eae7df",
    dark=False,
    variables={
        "border": "#cfcabd",
        "border-blurred": "#dedace",
        "footer-key-foreground": "#0b62c4",
        "footer-description-foreground": "#5c6470",
        "footer-background": "#fcfbf8",
        "block-cursor-text-style": "none",
    },
)
