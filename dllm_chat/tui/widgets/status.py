"""The line under the input: what is going on, what it costs, what serving earns, and how much is proved."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from dllm_chat.sanitize import clean_line
from dllm_chat.tui.view import (
    AnswerProgress,
    NetworkView,
    Phase,
    most_udllm,
    trust_words,
)
from dllm_chat.tui.wording import dllm

_GAP = Content.styled("  │  ", "dim")


class StatusLine(Horizontal):
    """One row; the left part gives way to the right one."""

    DEFAULT_CSS = """
    StatusLine {
        height: 1;
        padding: 0 2;
        color: $text-muted;
        & #doing { width: 1fr; height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
        & #facts { width: auto; height: 1; margin-left: 1; }
    }
    """

    def compose(self) -> ComposeResult:
        yield Static("", id="doing", markup=False)
        yield Static("", id="facts", markup=False)

    def show(self, view: NetworkView, answer: AnswerProgress | None, spent_udllm: int) -> None:
        """Draw it anew.

        Args:
            view: the network.
            answer: the running answer, if one runs.
            spent_udllm: by this conversation.
        """
        self.query_one("#doing", Static).update(_doing(view, answer))
        facts = [part for part in _facts(view, spent_udllm) if part.plain]
        self.query_one("#facts", Static).update(_GAP.join(facts))


def _doing(view: NetworkView, answer: AnswerProgress | None) -> Content:
    parts = [part for part in (_activity(view, answer), _serving(view)) if part.plain]
    return _GAP.join(parts)


def _activity(view: NetworkView, answer: AnswerProgress | None) -> Content:
    if answer is not None:
        words = clean_line(answer.doing, 100) or "answering"
        if answer.quote is not None and not answer.doing:
            words = f"quote ≤ {dllm(most_udllm(answer.quote))}"
        return Content.assemble(("● ", "$text-accent"), words)
    if view.phase is Phase.STARTING:
        return Content.assemble(("◌ ", "$text-accent"), clean_line(view.progress, 160))
    if view.phase is Phase.FAILED:
        return Content.assemble(("✗ ", "$text-error"), clean_line(view.progress, 400))
    if view.freshness is not None and view.freshness.problem:
        return Content.assemble(("! ", "$text-warning"), clean_line(view.freshness.problem, 160))
    return Content("" if view.is_contributing else "ready")


def _serving(view: NetworkView) -> Content:
    worker = view.worker
    if worker is None or (worker.state == "off" and not worker.problem):
        return Content("")
    if worker.problem or worker.state == "failed":
        return Content.assemble(("! ", "$text-warning"), clean_line(f"{worker.state}: {worker.problem}", 160))
    earned = f" · earned {dllm(worker.earned_udllm)}"
    return Content.assemble(("▲ ", "$text-success"), clean_line(worker.state, 20), earned)


def _facts(view: NetworkView, spent_udllm: int) -> list[Content]:
    spent = Content(f"spent {dllm(spent_udllm)}") if view.balance else Content("")
    return [spent, trust_words(view)]
