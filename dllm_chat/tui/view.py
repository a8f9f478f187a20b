"""What the screen knows of the network: one value, replaced whole, from which header and status line are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from textual.content import Content

from dllm_chat.sanitize import clean_line
from dllm_chat.tui.wording import dllm
from dllm_protocol.errors import DllmError, NetworkUnreachable, TimedOut, WalletLocked

if TYPE_CHECKING:
    from dllm_chat.session.events import Balance, Quote, WorkerStatus
    from light_node.client import Freshness


class Phase(StrEnum):
    """How far the network is."""

    STARTING = "starting"
    OPEN = "open"
    FAILED = "failed"


_STATES = {
    NetworkUnreachable.exit_code: "offline",
    TimedOut.exit_code: "offline",
    WalletLocked.exit_code: "locked",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the network did not open; clean lines."""

    code: str
    message: str
    hint: str
    state: str
    """``offline`` only where nobody answered; ``locked`` where no key can pay; else ``not open``."""


def failure_of(error: DllmError) -> Failure:
    """What the screen says of an error that kept the network from opening."""
    return Failure(
        clean_line(error.code, 40),
        clean_line(error.message, 1000),
        clean_line(error.hint, 1000),
        _STATES.get(error.exit_code, "not open"),
    )


@dataclass(frozen=True, slots=True)
class NetworkView:
    """The network as the person sees it."""

    phase: Phase = Phase.STARTING
    progress: str = "starting"
    """What is under way, or what to do where it failed; one clean line."""
    failure: Failure | None = None
    """Of a phase that failed."""
    badge: str = ""
    model: str = ""
    """The model that the next question goes to; empty before it is known."""
    freshness: Freshness | None = None
    balance: Balance | None = None
    worker: WorkerStatus | None = None

    @property
    def is_contributing(self) -> bool:
        """Whether this machine serves, or is about to."""
        return self.worker is not None and self.worker.running


@dataclass(frozen=True, slots=True)
class AnswerProgress:
    """How the running answer does."""

    doing: str = ""
    """One short sentence before text comes; empty afterwards."""
    quote: Quote | None = None
    tokens_seen: int = 0


def trust_words(view: NetworkView) -> Content:
    """``✓ verified 142``: state and height, in words and a sign, not in colour alone."""
    if view.phase is Phase.FAILED:
        state = view.failure.state if view.failure else "offline"
        return Content.styled(f"✗ {state}", "$text-error")
    if view.freshness is None:
        return Content.styled("… starting", "dim")
    state, height = str(view.freshness.state.value), view.freshness.height
    sign, style = {"verified": ("✓", "$text-success"), "trusting": ("~", "$text-warning")}.get(
        state, ("✗", "$text-error")
    )
    lag = f" (−{view.freshness.lag_blocks})" if view.freshness.lag_blocks > 1 else ""
    return Content.styled(f"{sign} {state} {height:,}{lag}", style)


def balance_words(balance: Balance | None) -> Content:
    """What can be spent; an embedded network's tokens are called play money wherever they are shown."""
    if balance is None:
        return Content("")
    held = dllm(balance.spendable_udllm + balance.in_sessions_udllm)
    if balance.play_money:
        return Content.assemble(held, (" play money", "$text-warning"))
    return Content(held)


def most_udllm(quote: Quote) -> int:
    """What an answer can cost at most, transaction fees included."""
    return quote.max_cost_udllm + quote.fees_udllm


def quote_words(quote: Quote) -> str:
    """``likely 0.0012, at most 0.003 DLLM``."""
    likely = dllm(quote.likely_cost_udllm).removesuffix(" DLLM")
    return f"likely {likely}, at most {dllm(most_udllm(quote))}"
