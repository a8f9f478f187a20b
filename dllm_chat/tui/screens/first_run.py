"""The first thing a newcomer sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from dllm_chat.models_found import FoundModel
from dllm_chat.sanitize import clean_line
from dllm_chat.tui.screens.dialog import Dialog
from dllm_chat.tui.wording import size

_WORDS = Content("\n").join(
    [
        Content(
            "Ask, and machines you need not trust answer, token by token. You pay them from a"
            " wallet that only you hold, and your own machine checks the proofs."
        ),
        Content(""),
        Content.assemble(
            ("LOCAL ", "bold $text-warning"),
            "You joined no network yet, so a whole one starts on this machine: a chain, two"
            " workers and a wallet with ",
            ("play money", "bold"),
            ". Nothing leaves this machine and nothing costs anything.",
        ),
        Content(""),
    ]
)


class FirstRunScreen(Dialog[Path]):
    """What this is; and, if the machine has models, which one to serve. None: the one in the package."""

    DEFAULT_CSS = """
    FirstRunScreen > #box { width: 74; }
    FirstRunScreen #offer { color: $text-muted; }
    FirstRunScreen OptionList { max-height: 8; margin-top: 1; }
    """

    def __init__(self, find: Callable[[], Sequence[FoundModel]]) -> None:
        """Ask.

        Args:
            find: looks for models; runs in a thread, after the screen is painted.
        """
        super().__init__()
        self._find = find
        self._models: Sequence[FoundModel] = ()

    def compose(self) -> ComposeResult:
        with self.box("Welcome to DLLM"):
            yield Static(_WORDS, markup=False)
            yield Static("Looking for models on this machine…", id="offer", markup=False)
            yield OptionList(
                Option(_line("Start with the small model in the package", "knows DLLM only")), markup=False
            )

    def on_mount(self) -> None:
        box = self.query_one("#box")
        box.border_subtitle = "enter chooses · esc starts"
        self.query_one(OptionList).focus()
        self.call_after_refresh(lambda: self.run_worker(self._offer()))

    async def _offer(self) -> None:
        self._models = await asyncio.to_thread(self._find)
        words = (
            "Models found here; one of them can answer instead (ctrl+g stops it):"
            if self._models
            else "No other models were found here (Ollama, LM Studio, llama.cpp, Hugging Face, GPT4All)."
        )
        self.query_one("#offer", Static).update(words)
        self.query_one(OptionList).add_options(
            [
                Option(
                    _line(f"Serve {clean_line(model.name, 40)}", f"{size(model.size_bytes)} · {model.source}")
                )
                for model in self._models
            ]
        )

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(self._models[event.option_index - 1].path if event.option_index else None)


def _line(what: str, about: str) -> Content:
    return Content.assemble(("▸ ", "$primary"), what, (f"  {about}", "dim"))
