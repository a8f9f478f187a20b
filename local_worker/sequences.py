"""Which session holds which KV sequence of the engine; the one unused longest makes room.

A session keeps its rows after its client went, so that the next turn need not decode them again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dllm_protocol.session.transcript import NO_TRANSCRIPT, held_digest
from local_worker.engine.errors import EngineBusy
from local_worker.engine.interface import ServingSequence
from local_worker.engine_host import EngineHost

MAX_LABELS = 1024
RECENT_S = 2.0
"""A session that decoded this recently is in the middle of an answer and keeps its rows."""


@dataclass(slots=True, eq=False)
class Held:
    """A session's rows in the engine."""

    sequence: ServingSequence
    ids: list[int] = field(default_factory=list)
    """Token ids of the rows held, by position; empty at a stage that sees none."""
    labels: list[tuple[int, bytes]] = field(default_factory=list)
    """At such a stage: what the client calls the first so many rows, ascending."""
    used_s: float = 0.0
    decoding: bool = False

    def note(self, first_position: int, ids: list[int]) -> None:
        """Rows were asked for; keep what the engine really holds of them."""
        del self.ids[first_position:]
        self.ids += ids
        del self.ids[self.sequence.held_rows :]

    def note_labelled(self, first_position: int, count: int, label: bytes) -> None:
        """The same where the client gives rows a label instead of ids."""
        while self.labels and self.labels[-1][0] > first_position:
            self.labels.pop()
        if self.sequence.held_rows >= first_position + count:
            self.labels.append((first_position + count, label))
        del self.labels[:-MAX_LABELS]


class SequencePool:
    """All sequences of the engine that runs now."""

    def __init__(
        self, host: EngineHost, clock_s: Callable[[], float], shortage: Callable[[], str] = lambda: ""
    ) -> None:
        """Prepare.

        Args:
            clock_s: monotonic seconds.
            shortage: says why no further session should be taken on now; empty where one can.
        """
        self._shortage = shortage
        self._host = host
        self._clock_s = clock_s
        self._held: dict[bytes, Held] = {}

    def forget_all(self) -> None:
        """The engine was replaced: nothing is held any more."""
        self._held.clear()

    def held_rows(self, session: bytes) -> int:
        """Rows that a session still has."""
        held = self._held.get(session)
        return held.sequence.held_rows if held is not None and self._host.alive else 0

    def held(self, session: bytes) -> tuple[int, bytes]:
        """(rows, digest of their ids, or the client's label) that a session still has."""
        held = self._held.get(session)
        if held is None or not self._host.alive:
            return 0, NO_TRANSCRIPT
        labels = [one for one in held.labels if one[0] <= held.sequence.held_rows]
        if labels:
            return labels[-1]
        return (len(held.ids), held_digest(held.ids)) if held.ids else (0, NO_TRANSCRIPT)

    def take(self, session: bytes) -> Held:
        """The session's sequence for one decode: its own, a free one, or that of the session unused longest.

        Raises:
            EngineBusy: every sequence is in the middle of an answer, or the session would be a new one and memory is
                short.
            EngineGone: there is no engine now.
        """
        engine = self._host.current()
        held = self._held.get(session)
        if held is None:
            if shortage := self._shortage():
                raise EngineBusy(
                    f"memory is short here: {shortage}", hint="try again in a moment, or another provider"
                )
            if not engine.free_sequences:
                self._evict()
            held = self._held[session] = Held(engine.open_sequence())
        held.used_s = self._clock_s()
        held.decoding = True
        return held

    def make_room(self) -> None:
        """Have a sequence free for others than sessions.

        Raises:
            EngineBusy: every sequence is in the middle of an answer.
            EngineGone: there is no engine now.
        """
        if not self._host.current().free_sequences:
            self._evict()

    def give_back(self, held: Held) -> None:
        """The decode is over; the rows stay until somebody needs the room."""
        held.decoding = False
        held.used_s = self._clock_s()

    def drop(self, session: bytes) -> None:
        """Free a session's rows now."""
        held = self._held.pop(session, None)
        if held is not None:
            held.sequence.close()

    def _evict(self) -> None:
        horizon_s = self._clock_s() - RECENT_S
        idle = [(held.used_s, session) for session, held in self._held.items() if not held.decoding]
        oldest = min(idle, default=(horizon_s, b""))
        if not idle or oldest[0] >= horizon_s:
            raise EngineBusy(
                f"all {len(self._held)} places are in the middle of an answer", hint="try again in a moment"
            )
        self.drop(oldest[1])
