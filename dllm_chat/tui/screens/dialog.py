"""What all questions over the chat have in common."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

Result = TypeVar("Result")


class Dialog(ModalScreen[Result | None], Generic[Result]):
    """A box in the middle; Escape answers nothing (None)."""

    DEFAULT_CSS = """
    Dialog {
        align: center middle;
        background: $background 70%;
        & > #box {
            width: 64;
            max-width: 94%;
            height: auto;
            max-height: 90%;
            border: round $primary;
            background: $surface;
            padding: 1 2;
            border-title-color: $primary;
            border-title-style: bold;
            border-subtitle-color: $text-muted;
        }
        & Static { width: 100%; height: auto; }
        & Input { margin: 0 0 1 0; border: tall $border; background: $background; }
        & Input:focus { border: tall $primary; }
        & OptionList {
            height: auto; max-height: 14; border: none; background: $surface; padding: 0;
            scrollbar-size-vertical: 1;
            &:focus { border: none; background-tint: transparent; }
            & > .option-list--option-highlighted { background: $panel; color: $foreground; }
            &:focus > .option-list--option-highlighted { background: $primary 30%; color: $foreground; }
        }
        & .buttons { height: auto; margin-top: 1; align-horizontal: right; }
        & .hint { color: $text-muted; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "answer_nothing", "Back", id="dialog.back"),
        Binding("left", "app.focus_previous", show=False, id="dialog.previous"),
        Binding("right", "app.focus_next", show=False, id="dialog.next"),
    ]

    def box(self, title: str) -> Vertical:
        """The frame; a context manager in `compose`."""
        box = Vertical(id="box")
        box.border_title = title
        box.border_subtitle = "esc back"
        return box

    def action_answer_nothing(self) -> None:
        """Go back without deciding."""
        self.dismiss(None)


class Choice(Dialog[str]):
    """A question with two or three answers; the result is the chosen button's id."""

    def __init__(self, title: str, text: str, answers: dict[str, tuple[str, str]], focused: str) -> None:
        """Ask.

        Args:
            title: of the box.
            text: the question, plain.
            answers: button id → label and Textual variant.
            focused: id of the button that Enter presses at first: the harmless one.
        """
        super().__init__()
        self._title = title
        self._text = text
        self._answers = answers
        self._focused = focused

    def compose(self) -> ComposeResult:
        with self.box(self._title):
            yield Static(self._text, markup=False)
            with Horizontal(classes="buttons"):
                for answer, (label, variant) in self._answers.items():
                    yield Button(label, variant=variant, id=answer)  # type: ignore[arg-type]  # one of Textual's literals

    def on_mount(self) -> None:
        self.query_one(f"#{self._focused}", Button).focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id)
