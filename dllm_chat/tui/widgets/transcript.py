"""The conversation on screen: a window of its messages, so that a long history costs no more than a short one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual import events
from textual.containers import VerticalScroll
from textual.message import Message as TextualMessage
from textual.widget import Widget
from textual.widgets import Static

from dllm_chat.history.records import Message, Role
from dllm_chat.history.store import History
from dllm_chat.tui.widgets.question import QuestionView
from dllm_chat.tui.widgets.reply import ReplyView
from dllm_chat.tui.widgets.welcome import Welcome

PAGE = 20
"""Messages that are added at a time."""
WINDOW = 60
"""Messages that are on screen at most."""

MessageView = QuestionView | ReplyView


class Edge(Static):
    """Stands where there is more than the window shows; a click or scrolling there loads it."""

    DEFAULT_CSS = """
    Edge { height: 1; width: 100%; content-align: center middle; color: $text-muted; margin: 0 0 1 0; }
    Edge:hover { color: $primary; }
    """

    class Pressed(TextualMessage):
        """More is wanted at this edge."""

        def __init__(self, earlier: bool) -> None:
            super().__init__()
            self.earlier = earlier

    def __init__(self, *, earlier: bool) -> None:
        super().__init__("↑ earlier messages" if earlier else "↓ later messages", markup=False)
        self._earlier = earlier

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.post_message(self.Pressed(self._earlier))


class Transcript(VerticalScroll):
    """Shows one conversation; stays at its end until the person scrolls away."""

    DEFAULT_CSS = """
    Transcript {
        height: 1fr;
        padding: 1 1 0 1;
        scrollbar-size-vertical: 1;
        background: $background;
        &.-empty { align: center middle; }
    }
    """

    def __init__(self, history: History, live_message: Callable[[], int | None]) -> None:
        """Prepare an empty one.

        Args:
            history: where the pages come from.
            live_message: id of the answer that is being streamed now, if any.
        """
        super().__init__(id="transcript")
        self._history = history
        self._live_message = live_message
        self._conversation_id: int | None = None
        self._busy = False

    # What is on screen

    @property
    def views(self) -> list[MessageView]:
        """Messages on screen, in order."""
        return [child for child in self.children if isinstance(child, QuestionView | ReplyView)]

    def reply(self, message_id: int) -> ReplyView | None:
        """The view of an answer, if it is on screen."""
        for view in self.views:
            if isinstance(view, ReplyView) and view.message_id == message_id:
                return view
        return None

    # Filling it

    async def show(self, conversation_id: int | None, around: int | None = None) -> None:
        """Show a conversation's end, or the neighbourhood of one of its messages."""
        self._conversation_id = conversation_id
        messages: list[Message] = []
        if conversation_id is not None:
            if around is None:
                messages = self._history.messages(conversation_id, limit=PAGE)
            else:
                before = self._history.messages(conversation_id, limit=PAGE // 2, before=around)
                messages = before + self._history.messages(conversation_id, limit=PAGE, after=around - 1)
        async with self.batch():
            await self.remove_children()
            await self.mount_all(self._widgets(messages) if messages else [Welcome()])
            await self._mark_edges()
        self.set_class(not messages, "-empty")
        self._go_to(around)

    def _go_to(self, message_id: int | None) -> None:
        if not self.views:
            self.anchor(False)
            return
        target = next((view for view in self.views if view.message_id == message_id), None)
        if target is None:
            self.anchor()
        else:
            self.anchor(False)
            self.call_after_refresh(self.scroll_to_widget, target, animate=False, top=True)

    async def add(self, messages: Sequence[Message]) -> None:
        """New messages at the end, which the person wants to see: goes there and follows."""
        if self.query("Edge.-later"):
            await self.show(self._conversation_id)
            return
        await self.query(Welcome).remove()
        self.remove_class("-empty")
        await self.mount_all(self._widgets(messages))
        await self._prune(from_top=True)
        await self._mark_edges()
        self.anchor()

    async def take_away(self, message_ids: set[int]) -> None:
        """Messages that are no more."""
        for view in self.views:
            if view.message_id in message_ids:
                await view.remove()

    def begin(self, conversation_id: int) -> None:
        """The conversation on screen got its row in the history."""
        self._conversation_id = conversation_id

    async def load(self, *, earlier: bool) -> None:
        """One page more at an edge; as much leaves at the other when the window is full."""
        views = self.views
        if self._busy or self._conversation_id is None or not views:
            return
        self._busy = True
        try:
            if earlier:
                await self._load_earlier(self._conversation_id, views[0])
            else:
                page = self._history.messages(self._conversation_id, limit=PAGE, after=views[-1].message_id)
                await self.mount_all(self._widgets(page), after=views[-1])
                await self._prune(from_top=True)
            await self._mark_edges()
        finally:
            self._busy = False

    async def _load_earlier(self, conversation_id: int, first: MessageView) -> None:
        page = self._history.messages(conversation_id, limit=PAGE, before=first.message_id)
        self.anchor(False)
        await self.mount_all(self._widgets(page), before=first)
        await self._prune(from_top=False)
        self.call_after_refresh(self.scroll_to_widget, first, animate=False, top=True)

    async def _prune(self, *, from_top: bool) -> None:
        excess = len(self.views) - WINDOW
        if excess > 0:
            await self.remove_children(self.views[:excess] if from_top else self.views[-excess:])

    async def _mark_edges(self) -> None:
        await self.query(Edge).remove()
        views = self.views
        if self._conversation_id is None or not views:
            return
        if self._history.messages(self._conversation_id, limit=1, before=views[0].message_id):
            await self.mount(Edge(earlier=True), before=views[0])
        if self._history.messages(self._conversation_id, limit=1, after=views[-1].message_id):
            edge = Edge(earlier=False)
            edge.add_class("-later")
            await self.mount(edge, after=views[-1])

    def _widgets(self, messages: Sequence[Message]) -> list[Widget]:
        live = self._live_message()
        return [
            QuestionView(message)
            if message.role is Role.USER
            else ReplyView(message, live=message.id == live)
            for message in messages
        ]

    # Asking for more

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if new_value <= 0 < old_value and self.query(Edge) and not self.query("Edge.-later:first-child"):
            self.run_worker(self.load(earlier=True), group="page", exit_on_error=True)

    def on_edge_pressed(self, event: Edge.Pressed) -> None:
        event.stop()
        self.run_worker(self.load(earlier=event.earlier), group="page", exit_on_error=True)
