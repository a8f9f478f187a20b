"""What a light client noticed about the nodes it asks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from dllm_protocol.timestamp import Timestamp
from light_node.clock import Clock

EVENTS_KEPT = 100
"""How many events a client remembers."""


class EventKind(StrEnum):
    """What happened."""

    PRIMARY_REPLACED = "primary-replaced"
    PRIMARY_STALLED = "primary-stalled"
    WITNESS_IGNORED = "witness-ignored"
    """It did not answer or is behind; it is asked again next time."""
    WITNESS_REMOVED = "witness-removed"
    """It showed what does not hold; it is asked no more."""
    ATTACK = "attack"
    EVIDENCE_SENT = "evidence-sent"
    EVIDENCE_NOT_SENT = "evidence-not-sent"


@dataclass(frozen=True, slots=True)
class LightEvent:
    """One thing that happened."""

    kind: EventKind
    name: str
    """The node that it is about."""
    message: str
    at: Timestamp


class Journal:
    """The newest events, and whoever wants to hear of them at once."""

    def __init__(self, clock: Clock, on_event: Callable[[LightEvent], None] | None = None) -> None:
        """Prepare; `on_event` is called where the thing happens and must not raise."""
        self._clock = clock
        self._on_event = on_event
        self._events: deque[LightEvent] = deque(maxlen=EVENTS_KEPT)

    @property
    def events(self) -> tuple[LightEvent, ...]:
        """The newest events, oldest first."""
        return tuple(self._events)

    def note(self, kind: EventKind, name: str, message: str) -> None:
        """Remember an event."""
        event = LightEvent(kind, name, message, self._clock.now())
        self._events.append(event)
        if self._on_event is not None:
            self._on_event(event)
