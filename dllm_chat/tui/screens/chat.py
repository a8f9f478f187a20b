"""The chat: conversations at the side, the transcript, the prompt, and what is known of the network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widgets import Footer

from dllm_chat.history.records import MessageState, Outcome, Role, SearchHit
from dllm_chat.history.store import TITLE_LIMIT, History
from dllm_chat.sanitize import clean, clean_line
from dllm_chat.tui.keys import CHAT_ACTIONS, CHAT_BINDINGS
from dllm_chat.tui.network_watch import POLL_S, NetworkWatch
from dllm_chat.tui.notices import complain, say_worker_failed
from dllm_chat.tui.view import AnswerProgress, NetworkView, Phase
from dllm_chat.tui.widgets.failure import FailureView
from dllm_chat.tui.widgets.header import TopLine
from dllm_chat.tui.widgets.prompt import Prompt
from dllm_chat.tui.widgets.sidebar import Sidebar
from dllm_chat.tui.widgets.status import StatusLine
from dllm_chat.tui.widgets.transcript import Transcript
from dllm_protocol.errors import DllmError

if TYPE_CHECKING:
    from dllm_chat.models_found import FoundModel
    from dllm_chat.session.service_door import ChatDoor
    from dllm_chat.tui.asking import Asking

SAVE_S = 1.0
WELCOMED = "welcomed"


class ChatScreen(Screen[None]):
    """Everything a conversation needs; other questions come as dialogs over it."""

    DEFAULT_CSS = """
    ChatScreen {
        layout: vertical;
        & #body { height: 1fr; }
        & #main { width: 1fr; }
        &.-narrow Sidebar { display: none; }
        &.-narrow Sidebar.-toggled { display: block; }
        &.-wide Sidebar.-toggled { display: none; }
        & Footer { background: $background; padding: 0 1; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*CHAT_BINDINGS]

    def __init__(
        self,
        door_factory: Callable[[], ChatDoor],
        history: History,
        *,
        clock: Callable[[], float],
        find_models: Callable[[], Sequence[FoundModel]],
        find_network: Callable[[], str],
        conversation_id: int | None = None,
    ) -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
        self.network = NetworkWatch(
            door_factory, self._network_changed, lambda why: say_worker_failed(self.app, why)
        )
        self.network.wanted_model = history.setting("model")
        self._history = history
        self._clock = clock
        self._find_models, self._find_network = find_models, find_network
        self._conversation_id = conversation_id
        self._asking: Asking | None = None
        self._waiting_text = ""
        """Sent before the network stood; goes out when it does, unless it was changed meanwhile."""

    # Building

    def compose(self) -> ComposeResult:
        yield TopLine()
        with Horizontal(id="body"):
            yield Sidebar()
            with Vertical(id="main"):
                yield Transcript(self._history, lambda: self._asking.answer_id if self._asking else None)
                yield FailureView()
                yield Prompt()
                yield StatusLine()
        yield Footer()

    async def on_mount(self) -> None:
        self.query_one(Prompt).focus()
        await self.query_one(Transcript).show(self._conversation_id)
        self._show_conversations()
        self._network_changed(self.network.view)
        if not self._history.setting(WELCOMED) and not self._history.conversations(1):
            self.run_worker(self._welcome(), group="welcome")
        self.call_after_refresh(self._open_network)
        self.set_interval(SAVE_S, self._save_answer)
        self.set_interval(POLL_S, lambda: self.run_worker(self.network.poll(), group="poll"))

    def _open_network(self) -> None:
        self.run_worker(self._open_then_send(), group="open", exclusive=True)

    async def _open_then_send(self) -> None:
        waited, door = await self.network.open(), self.network.door
        prompt, text = self.query_one(Prompt), self._waiting_text
        self._waiting_text = ""
        if waited and door is not None and text and prompt.text == text and self._asking is None:
            prompt.clear()
            await self._ask(door, text)

    async def _welcome(self) -> None:
        from dllm_chat.tui.screens.first_run import FirstRunScreen

        network = await asyncio.to_thread(self._find_network)
        model_file = await self.app.push_screen_wait(FirstRunScreen(self._find_models, network))
        self._history.remember(WELCOMED, "1")
        if model_file is not None:
            await self._contribute(on=True, model_file=model_file)

    # What is known

    def _network_changed(self, view: NetworkView) -> None:
        # News may come while the screen is being built or taken down.
        with contextlib.suppress(NoMatches):
            self.query_one(TopLine).show_network(view)
            self.query_one(FailureView).show(view.failure)
            self._show_status()

    def _show_status(self) -> None:
        spent_udllm = 0
        if self._conversation_id is not None:
            conversation = self._history.conversation(self._conversation_id)
            spent_udllm = conversation.spent_udllm if conversation else 0
        progress = self._asking.progress if self._asking else None
        self.query_one(StatusLine).show(self.network.view, progress, spent_udllm)

    def _show_conversations(self) -> None:
        conversations = self._history.conversations()
        self.query_one(Sidebar).show(conversations, self._conversation_id, self._clock())
        title = next((one.title for one in conversations if one.id == self._conversation_id), "")
        self.query_one(TopLine).show_title(title)
        self._show_status()

    async def _open_conversation(self, conversation_id: int | None, around: int | None = None) -> None:
        self._conversation_id = conversation_id
        await self.query_one(Transcript).show(conversation_id, around)
        self._show_conversations()
        self._refresh_live_view()
        self.query_one(Prompt).focus()

    # Asking

    async def on_prompt_submitted(self, event: Prompt.Submitted) -> None:
        event.stop()
        door = self.network.door
        if self._asking is not None:
            self.notify("Still answering: esc stops it. Your text stays here.", severity="warning")
        elif self.network.view.phase is Phase.FAILED:
            self.notify("Trying again; your question goes out when the network stands.")
            self._waiting_text = event.text
            self._open_network()
        elif door is None or self.network.view.phase is not Phase.OPEN:
            self.notify("The network is still starting; your question goes out as soon as it stands.")
            self._waiting_text = event.text
        else:
            self.query_one(Prompt).clear()
            await self._ask(door, event.text)

    async def _ask(self, door: ChatDoor, text: str) -> None:
        from dllm_chat.tui.asking import Asking

        text = clean(text).strip()
        transcript = self.query_one(Transcript)
        if self._conversation_id is None:
            self._conversation_id = self._history.new_conversation(clean_line(text, TITLE_LIMIT))
            transcript.begin(self._conversation_id)
        await self._drop_failed_try(self._conversation_id, text)
        question_id = self._history.add_question(self._conversation_id, text)
        answer_id = self._history.begin_answer(self._conversation_id)
        self._asking = Asking(door, self._history, self._conversation_id, answer_id, self)
        added = self._history.messages(self._conversation_id, limit=2, after=question_id - 1)
        await transcript.add(added)
        self._show_conversations()
        self.refresh_bindings()
        self.run_worker(self._follow(self._asking, text), group="ask")

    async def _drop_failed_try(self, conversation_id: int, text: str) -> None:
        """A question sent again after a failure without any text takes the failed one's place."""
        last = self._history.messages(conversation_id, limit=2)
        if [one.role for one in last] != [Role.USER, Role.ASSISTANT] or last[0].text != text:
            return
        if last[1].state is MessageState.FAILED and not last[1].text:
            for message in last:
                self._history.drop_message(message.id)
            await self.query_one(Transcript).take_away({message.id for message in last})

    async def _follow(self, asking: Asking, text: str) -> None:
        outcome = Outcome(MessageState.FAILED, "")
        try:
            outcome = await asking.run(self.network.wanted_model or None)
        finally:
            self._asking = None
        # Whoever quits just now takes the widgets away; the answer is saved already.
        with contextlib.suppress(NoMatches):
            await self._show_end(asking.answer_id, outcome, text)
        await self.network.poll()

    async def _show_end(self, answer_id: int, outcome: Outcome, text: str) -> None:
        prompt = self.query_one(Prompt)
        if outcome.state is MessageState.FAILED and not prompt.text:
            prompt.load_text(text)
            prompt.move_cursor(prompt.document.end)
        reply = self.query_one(Transcript).reply(answer_id)
        if reply is not None:
            await reply.finish(outcome)
        self._show_conversations()
        self.refresh_bindings()

    def _save_answer(self) -> None:
        if self._asking is not None:
            self._asking.save_if_more()

    async def answer_text(self, message_id: int, delta: str) -> None:
        """More text; see `asking.AnswerScreen`."""
        reply = self.query_one(Transcript).reply(message_id)
        if reply is not None:
            await reply.feed(delta)

    def answer_progress(self, message_id: int, progress: AnswerProgress) -> None:
        """What is under way; see `asking.AnswerScreen`. The status line is not drawn for each token."""
        reply = self.query_one(Transcript).reply(message_id)
        if reply is not None:
            reply.show_progress(progress)
        if progress.tokens_seen <= 1:
            self._show_status()

    def answer_notes(self, message_id: int, notes: tuple[str, ...]) -> None:
        """Takeovers; see `asking.AnswerScreen`."""
        reply = self.query_one(Transcript).reply(message_id)
        if reply is not None:
            reply.show_notes(notes)

    def _refresh_live_view(self) -> None:
        """A running answer came back on screen: what was saved is shown, so the rest must be too."""
        if self._asking is not None and self._asking.conversation_id == self._conversation_id:
            self.answer_progress(self._asking.answer_id, self._asking.progress)

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Stop is offered while there is something to stop; rename and delete need a conversation."""
        if self.app.screen is not self and action in CHAT_ACTIONS:
            return False
        if action == "stop":
            return self._asking is not None
        return self._conversation_id is not None if action in ("rename", "delete") else True

    def action_stop(self) -> None:
        """End the answer after the current token."""
        if self.network.door is not None:
            self.network.door.stop()

    async def action_new(self) -> None:
        """An empty conversation; it is kept from its first question on."""
        await self._open_conversation(None)

    def action_search(self) -> None:
        """Find words anywhere."""
        from dllm_chat.tui.screens.search import SearchScreen

        async def found(hit: SearchHit | None) -> None:
            if hit is not None:
                await self._open_conversation(hit.conversation_id, hit.message_id)

        self.app.push_screen(SearchScreen(self._history, self._clock()), found)

    async def action_model(self) -> None:
        """Choose who answers from now on."""
        from dllm_chat.tui.screens.pick_model import PickModelScreen

        if self.network.door is None or self.network.view.phase is not Phase.OPEN:
            self.notify("The network is still starting.")
            return
        try:
            models = await self.network.door.models()
        except DllmError as error:
            complain(self.app, error)
            return

        def chosen(name: str | None) -> None:
            if name:
                self._history.remember("model", name)
                self.network.choose_model(name)

        self.app.push_screen(PickModelScreen(models, self.network.view.model), chosen)

    def action_contribute(self) -> None:
        """Serve with this machine, or stop serving."""
        self.run_worker(self._contribute(on=not self.network.view.is_contributing), group="contribute")

    async def _contribute(self, *, on: bool, model_file: Path | None = None) -> None:
        if not await self.network.stands():
            self.notify("The network does not stand: nothing was started.")
            return
        self.notify("Starting to contribute…" if on else "Finishing what is being served, then stopping…")
        try:
            await self.network.contribute(on, model_file)
        except DllmError as error:
            complain(self.app, error)

    def action_rename(self) -> None:
        """Another title."""
        from dllm_chat.tui.screens.rename import RenameScreen

        conversation = self._history.conversation(self._conversation_id or 0)
        if conversation is None:
            return

        def named(title: str | None) -> None:
            if title:
                self._history.rename(conversation.id, title)
                self._show_conversations()

        self.app.push_screen(RenameScreen(conversation.title), named)

    def action_delete(self) -> None:
        """Remove the conversation, after asking."""
        from dllm_chat.tui.screens.choices import delete_choice

        conversation = self._history.conversation(self._conversation_id or 0)
        if conversation is None:
            return
        if self._asking is not None and self._asking.conversation_id == conversation.id:
            self.notify("An answer is coming in here: esc stops it first.", severity="warning")
            return

        async def answered(answer: str | None) -> None:
            if answer == "delete":
                self._history.delete(conversation.id)
                await self._open_conversation(None)

        self.app.push_screen(delete_choice(conversation), answered)

    def action_sidebar(self) -> None:
        """The list of conversations, on or off."""
        sidebar = self.query_one(Sidebar)
        sidebar.toggle_class("-toggled")

    def action_scroll(self, direction: int) -> None:
        """A page of the transcript, from wherever the cursor is."""
        transcript = self.query_one(Transcript)
        if direction < 0:
            transcript.scroll_page_up()
        else:
            transcript.scroll_page_down()

    def action_help(self) -> None:
        """All keys."""
        from dllm_chat.tui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen())

    # From the widgets

    async def on_sidebar_chosen(self, event: Sidebar.Chosen) -> None:
        event.stop()
        await self._open_conversation(event.conversation_id)

    def on_prompt_recall_wanted(self, event: Prompt.RecallWanted) -> None:
        event.stop()
        if self._conversation_id is None:
            return
        asked = [
            one for one in self._history.messages(self._conversation_id, limit=10) if one.role is Role.USER
        ]
        if asked:
            prompt = self.query_one(Prompt)
            prompt.load_text(asked[-1].text)
            prompt.move_cursor(prompt.document.end)
