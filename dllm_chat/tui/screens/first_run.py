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

_PROMISE = Content(
    "Ask, and machines you need not trust answer, token by token. You pay them from a"
    " wallet that only you hold, and your own machine checks the proofs."
)
_EMBEDDED = Content.assemble(
    ("LOCAL ", "bold $text-warning"),
    "You joined no network yet, so a whole one starts on this machine: a chain, two"
    " workers and a wallet with ",
    ("play money", "bold"),
    ". Nothing leaves this machine and nothing costs anything.",
)


def _joined(network: str) -> Content:
    return Content.assemble(
        ("NETWORK ", "bold $text-primary"),
        f"You joined {clean_line(network, 60)}. Questions go to its workers, who can read them, and are"
        " paid with its tokens.",
    )


class FirstRunScreen(Dialog[Path]):
    """What this is; and, if the machine has models, which one to serve. None: the one in the package."""

    DEFAULT_CSS = """
    FirstRunScreen > #box { width: 74; }
    FirstRunScreen #offer { color: $text-muted; }
    FirstRunScreen OptionList { max-height: 8; margin-top: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, find: Callable[[], Sequence[FoundModel]], network: str = "") -> None:
        """Ask.

        Args:
            find: looks for models; runs in a thread, after the screen is painted.
            network: the joined network's name; empty: the embedded one starts.
        """
        super().__init__()
        self._network = network
        self._find = find
        self._models: Sequence[FoundModel] = ()

    def compose(self) -> ComposeResult:
        with self.box("Welcome to DLLM"):
            where = _joined(self._network) if self._network else _EMBEDDED
            yield Static(Content("\n").join([_PROMISE, Content(""), where, Content("")]), markup=False)
            yield Static("Looking for models on this machine…", id="offer", markup=False)
            yield OptionList(Option(self._start_line()), markup=False)

    def _start_line(self) -> Content:
        if self._network:
            return _line("Begin", "the network's workers answer")
        return _line("Start with the small model in the package", "knows DLLM only")

    def on_mount(self) -> None:
        box = self.query_one("#box")
        box.border_subtitle = "enter chooses · esc starts"
        self.query_one(OptionList).focus()
        self.call_after_refresh(lambda: self.run_worker(self._offer()))

    async def _offer(self) -> None:
        self._models = await asyncio.to_thread(self._find)
        # Where a network's workers answer, none is missed; where only a chat key pays there, none is looked for.
        words = (
            ""
            if self._network
            else "No other models were found here (Ollama, LM Studio, llama.cpp, Hugging Face, GPT4All)."
        )
        if self._models:
            words = "Models found here; one of them can answer instead (ctrl+g stops it):"
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
