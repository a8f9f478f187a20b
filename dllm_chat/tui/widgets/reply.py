"""One answer: streamed Markdown, takeovers, what it cost and who served it, or why it failed."""

from __future__ import annotations

from pathlib import PurePath

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Markdown, Static
from textual.widgets.markdown import MarkdownStream

from dllm_chat.history.records import Message, MessageState, Outcome
from dllm_chat.sanitize import clean, clean_line
from dllm_chat.tui.view import AnswerProgress
from dllm_chat.tui.widgets.failure import failure_words
from dllm_chat.tui.widgets.header import badge_words
from dllm_chat.tui.widgets.markdown import SafeMarkdown
from dllm_chat.tui.wording import count, dllm, short_address

COUNT_S = 0.25
"""How often the count of tokens is drawn while text comes."""
_DOT = Content.styled(" · ", "dim")


class ReplyView(Vertical):
    """Finished, or still growing."""

    DEFAULT_CSS = """
    ReplyView {
        height: auto;
        max-width: 120;
        margin: 0 0 1 0;
        padding: 0 1 0 2;
        & > Static { height: auto; display: none; }
        & > Static.-shown { display: block; }
        & > .reply--notes { color: $text-warning; text-style: italic; }
        & > .reply--error {
            border-left: outer $error; background: $error-muted 40%; padding: 0 1; margin: 0 0 1 0;
        }
        & > .reply--foot { color: $text-muted; }
    }
    """

    def __init__(self, message: Message, *, live: bool = False) -> None:
        """Show a message.

        Args:
            message: what the history holds of it.
            live: whether more text will come through `feed`.
        """
        super().__init__()
        self.message_id = message.id
        self._outcome = message.outcome
        self._live = live
        self._stream: MarkdownStream | None = None
        self._progress = AnswerProgress()
        self._drawn: AnswerProgress | None = None

    def compose(self) -> ComposeResult:
        yield SafeMarkdown(self._outcome.text)
        yield Static("", markup=False, classes="reply--notes")
        yield Static("", markup=False, classes="reply--error")
        yield Static("", markup=False, classes="reply--foot")

    def on_mount(self) -> None:
        self._dress(self._outcome)
        if self._live:
            self.set_interval(COUNT_S, self._draw_progress)

    async def on_unmount(self) -> None:
        await self._end_stream()

    async def feed(self, delta: str) -> None:
        """More text; drawn as fast as drawing goes, nothing is dropped."""
        if self._stream is None:
            self._stream = Markdown.get_stream(self.query_one(SafeMarkdown))
        await self._stream.write(clean(delta))

    def show_progress(self, progress: AnswerProgress) -> None:
        """What happens before and while text comes; of tokens that come fast, not each one is drawn."""
        self._progress = progress
        if progress.tokens_seen <= 1:
            self._draw_progress()

    def _draw_progress(self) -> None:
        if self._live and self._progress != self._drawn:
            self._drawn = self._progress
            self._put("foot", Content.assemble(f"● {_doing(self._progress)}", ("  ·  esc stops", "dim")))

    def show_notes(self, notes: tuple[str, ...]) -> None:
        """Takeovers, one a line."""
        self._put("notes", Content("\n".join(f"↻ {clean_line(note)}" for note in notes)))

    async def finish(self, outcome: Outcome) -> None:
        """Show the end: the whole text is parsed once more, so that no half-streamed block stays."""
        self._live = False
        await self._end_stream()
        self._outcome = outcome
        await self.query_one(SafeMarkdown).update(clean(outcome.text))
        self._dress(outcome)

    async def _end_stream(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.stop()

    def _dress(self, outcome: Outcome) -> None:
        self.show_notes(outcome.notes)
        self._put("error", error_words(outcome))
        if self._live:
            self._draw_progress()
        else:
            self._put("foot", foot_words(outcome))

    def _put(self, part: str, content: Content) -> None:
        static = self.query_one(f".reply--{part}", Static)
        static.update(content)
        static.set_class(bool(content.plain), "-shown")


def _doing(progress: AnswerProgress) -> str:
    """What is under way, or how many tokens came; the quote stands in the status line."""
    if progress.tokens_seen and not progress.doing:
        return f"{count(progress.tokens_seen, 'token')} so far"
    return clean_line(progress.doing, 100) or "thinking"


def error_words(outcome: Outcome) -> Content:
    """Code, message and hint of a failed answer."""
    if outcome.state is not MessageState.FAILED:
        return Content("")
    return failure_words(outcome.error_code, outcome.error_message, outcome.error_hint)


def foot_words(outcome: Outcome) -> Content:
    """Badge, who served, tokens, cost and receipt; and whether it was cut short."""
    parts = [badge_words(outcome.badge)] if outcome.badge else []
    if outcome.completion_tokens:
        parts.append(Content(f"{outcome.prompt_tokens:,} → {count(outcome.completion_tokens, 'token')}"))
    if outcome.badge or outcome.cost_udllm or outcome.fees_udllm:
        parts.append(Content(dllm(outcome.cost_udllm + outcome.fees_udllm)))
    if outcome.badge and outcome.providers:
        parts.append(Content(" → ".join(short_address(clean_line(one)) for one in outcome.providers)))
    if outcome.state is MessageState.STOPPED:
        parts.append(Content.styled("stopped by you", "$text-warning"))
    if outcome.state is MessageState.PARTIAL:
        parts.append(Content.styled("interrupted: this answer did not end", "$text-warning"))
    line = _DOT.join(parts)
    if outcome.receipt:
        receipt = f"receipt {clean_line(PurePath(outcome.receipt).name, 60)}"
        line = Content("\n").join([line, Content.styled(receipt, "dim")])
    return line
