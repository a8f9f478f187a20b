"""Which model to ask."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from dllm_chat.sanitize import clean_line
from dllm_chat.tui.screens.dialog import Dialog


class PickModelScreen(Dialog[str]):
    """The network's models; the result is a name."""

    def __init__(self, models: Sequence[str], current: str) -> None:
        super().__init__()
        self._models = models
        self._current = current

    def compose(self) -> ComposeResult:
        with self.box("Which model should answer?"):
            if not self._models:
                yield Static("No model is registered on this network.", markup=False)
            yield OptionList(*[Option(self._line(name)) for name in self._models], markup=False)

    def on_mount(self) -> None:
        options = self.query_one(OptionList)
        if self._current in self._models:
            options.highlighted = list(self._models).index(self._current)
        options.focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(self._models[event.option_index])

    def _line(self, name: str) -> Content:
        mark = "● " if name == self._current else "  "
        return Content.assemble((mark, "$primary"), clean_line(name))
