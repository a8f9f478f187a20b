"""What the history remembers, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Who wrote a message."""

    USER = "user"
    ASSISTANT = "assistant"


class MessageState(StrEnum):
    """How far a message got."""

    PARTIAL = "partial"
    """Still streaming, or its program was killed in the middle."""
    COMPLETE = "complete"
    STOPPED = "stopped"
    """The person stopped it; the text so far is kept and paid."""
    FAILED = "failed"
    """It ended in an error, which the message carries."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One entry of the list."""

    id: int
    title: str
    """One harmless line; empty until the first question."""
    created_s: int
    """Unix time."""
    updated_s: int
    """Unix time of the last message; the list is sorted by it."""
    message_count: int
    spent_udllm: int
    """Vouchers and fees of all its answers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of an answer once it has ended, or at its last save."""

    state: MessageState
    text: str
    model: str = ""
    badge: str = ""
    """``LOCAL`` or ``NETWORK``; empty when nobody answered."""
    providers: tuple[str, ...] = ()
    """Provider ids (bech32), in the order in which they served."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_udllm: int = 0
    fees_udllm: int = 0
    receipt: str = ""
    """Path of the receipt file."""
    notes: tuple[str, ...] = ()
    """Lines to show above the answer's end, such as a takeover."""
    error_code: str = ""
    error_message: str = ""
    error_hint: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    id: int
    conversation_id: int
    role: Role
    created_s: int
    """Unix time."""
    outcome: Outcome

    @property
    def text(self) -> str:
        return self.outcome.text

    @property
    def state(self) -> MessageState:
        return self.outcome.state


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A place where the words were found."""

    conversation_id: int
    message_id: int | None
    """None when the conversation's title matched."""
    title: str
    role: Role | None
    updated_s: int
    snippet: tuple[tuple[str, bool], ...]
    """Pieces of text around the find; True marks the words that matched."""
