"""What an empty conversation shows."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

_WORDS = Content("\n").join(
    [
        Content.styled("◆ D L L M", "bold $primary"),
        Content(""),
        Content("Ask, and machines you need not trust answer."),
        Content.styled("You pay per token; your own machine checks the proofs.", "dim"),
        Content(""),
        Content.assemble(("Try  ", "dim"), "What is DLLM?"),
        Content.assemble(("     ", "dim"), "How do I earn by contributing?"),
        Content.assemble(("     ", "dim"), "What does the LOCAL badge mean?"),
    ]
)


class Welcome(Static):
    """Who we are and three questions to begin with."""

    DEFAULT_CSS = """
    Welcome { width: auto; max-width: 100%; height: auto; }
    """

    def __init__(self) -> None:
        super().__init__(_WORDS, markup=False)
