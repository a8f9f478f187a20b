"""The application: themes, palette, quitting; and the one factory for the command line and for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from dllm_chat.history.store import History
from dllm_chat.tui.notices import complain
from dllm_chat.tui.screens.chat import ChatScreen
from dllm_chat.tui.themes import DARK, LIGHT
from dllm_protocol.errors import DllmError

if TYPE_CHECKING:
    from dllm_chat.models_found import FoundModel
    from dllm_chat.session.service_door import ChatDoor

TWICE_S = 2.0
"""Two presses of ctrl+c within this time quit."""


class ChatApp(App[None]):
    """`dllm-chat`."""

    TITLE = "DLLM"
    ENABLE_COMMAND_PALETTE = True
    PAUSE_GC_ON_SCROLL = True
    CSS = """
    CommandPalette > Vertical { width: 90; max-width: 94%; }
    CommandPalette { align-horizontal: center; }
    Dialog Button {
        margin-left: 2; min-width: 10; height: 1; border: none; padding: 0 1;
        background: $panel; color: $foreground; text-style: none; background-tint: transparent;
        &:hover { background: $primary 30%; border: none; color: $foreground; }
        &:focus {
            background: $primary; color: $background; text-style: bold;
            border: none; background-tint: transparent;
        }
        &.-active { border: none; tint: transparent; }
        &.-error { color: $text-error; }
        &.-error:focus { background: $error; color: $background; }
    }
    ToastRack { dock: top; align: right top; margin: 1 0 0 0; max-height: 50%; }
    Toast { background: $panel; border-left: outer $primary; padding: 0 1; max-width: 75%; }
    Toast.-warning { border-left: outer $warning; }
    Toast.-error { border-left: outer $error; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "interrupt", show=False, priority=True, id="app.interrupt"),
        Binding("ctrl+q", "leave", "Quit", show=False, priority=True, id="app.quit"),
    ]

    def __init__(self, chat: ChatScreen, history: History) -> None:
        super().__init__()
        self.chat = chat
        self._history = history
        self._interrupted_s = -TWICE_S
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        wanted = history.setting("theme")
        self.theme = wanted if wanted in self.available_themes else DARK.name

    def on_mount(self) -> None:
        self.theme_changed_signal.subscribe(self, lambda theme: self._history.remember("theme", theme.name))

    def get_default_screen(self) -> Screen[None]:
        """The chat is the first thing painted."""
        return self.chat

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What ctrl+p lists."""
        chat = self.chat
        yield SystemCommand("New conversation", "begin with an empty page (ctrl+n)", chat.action_new)
        yield SystemCommand("Search all conversations", "find any word (ctrl+f)", chat.action_search)
        yield SystemCommand("Rename conversation", "give it another title (F2)", chat.action_rename)
        yield SystemCommand("Delete conversation", "remove it for good (ctrl+d)", chat.action_delete)
        yield SystemCommand("Choose model", "who answers from now on (ctrl+o)", chat.action_model)
        yield SystemCommand(
            "Contribute on or off", "serve with this machine and earn (ctrl+g)", chat.action_contribute
        )
        yield SystemCommand(
            "Settle open sessions", "pay for what was used, unlock the rest", self.action_settle
        )
        yield SystemCommand("Conversation list on or off", "more room for the text (F3)", chat.action_sidebar)
        yield SystemCommand(
            "Theme", "colours; ansi-dark and ansi-light use the terminal's own", self.action_change_theme
        )
        yield SystemCommand("Keys and meanings", "what every key and badge does (F1)", chat.action_help)
        yield SystemCommand("Quit", "and settle open sessions, if you like (ctrl+q)", self.action_leave)

    def action_interrupt(self) -> None:
        """Copy what is selected; else quit when pressed twice."""
        selected = self.screen.get_selected_text()
        if selected:
            self.copy_to_clipboard(selected)
            self.notify("Copied.", timeout=1.5)
            return
        now_s = time.monotonic()
        if now_s - self._interrupted_s < TWICE_S:
            self.action_leave()
            return
        self._interrupted_s = now_s
        self.notify("Press ctrl+c again to quit.", timeout=TWICE_S)

    def action_leave(self) -> None:
        """Quit; where deposits are still locked in sessions, ask what to do with them. Twice means now."""
        from dllm_chat.tui.screens.choices import leave_choice
        from dllm_chat.tui.screens.dialog import Choice

        balance = self.chat.network.view.balance
        if balance is None or not balance.in_sessions_udllm or isinstance(self.screen, Choice):
            self.exit()
            return
        self.push_screen(leave_choice(balance), self._left)

    def _left(self, answer: str | None) -> None:
        if answer == "leave":
            self.exit()
        elif answer == "settle":
            self.run_worker(self._settle(then_quit=True), group="settle")

    def action_settle(self) -> None:
        """Close all sessions and stay."""
        self.run_worker(self._settle(then_quit=False), group="settle")

    async def _settle(self, *, then_quit: bool) -> None:
        door = self.chat.network.door
        if door is None:
            return
        self.notify("Settling open sessions…")
        try:
            await door.close_sessions()
        except DllmError as error:
            complain(self, error)
            return
        await self.chat.network.poll()
        self.notify("All sessions are settled.")
        if then_quit:
            self.exit()


def make_app(
    door_factory: Callable[[], ChatDoor],
    history: History,
    *,
    find_models: Callable[[], Sequence[FoundModel]],
    find_network: Callable[[], str] = str,
    clock: Callable[[], float] = time.time,
    conversation_id: int | None = None,
) -> ChatApp:
    """The whole application.

    Args:
        door_factory: imports and makes the door to the network; runs in a thread after the first paint.
        history: the conversations; the caller closes it.
        find_models: looks for GGUF files; runs in a thread, on the first run only.
        find_network: the joined network's name, empty where none is; runs in a thread, on the first run only.
        clock: Unix time in seconds.
        conversation_id: which conversation to open; None begins a new one.
    """
    chat = ChatScreen(
        door_factory,
        history,
        clock=clock,
        find_models=find_models,
        find_network=find_network,
        conversation_id=conversation_id,
    )
    return ChatApp(chat, history)
