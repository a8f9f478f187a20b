"""Decode the likeliest next row while its logits still travel to the client and back.

A row's way through service, channel and client costs a large part of a millisecond at home and tens of them over a
network, in which the model would stand idle. Where one sequence has the engine to itself and its last tokens were
all the likeliest ones, the next one probably is too: its row is decoded at once. If the next request is exactly that
row, its logits are ready or under way; if not, the row is taken out of the KV cache again and nothing has happened.
A guess is no job: it is in no count, holds no row of its sequence, and never starts while anybody waits.

A wrong guess may cost the next row up to one decode of waiting. So a miss doubles how many likeliest tokens in a row
are asked for before the next guess; as many hits in a row bring it back down.

A client may guess for itself and ask for a window of rows. A window that begins with the guessed row is a hit, and only
its other rows are left to decode. Behind a window nothing is guessed: which of its rows the client keeps is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from local_worker.engine.messages import DecodeRequest, Ids, Logits, RowOutput
from local_worker.engine.rows import BatchFailed, Rows

MIN_STREAK: Final = 8
MAX_STREAK: Final = 128


class Decoder(Protocol):
    """What is needed of a model."""

    context_rows: int

    def decode(self, parts: Sequence[Rows]) -> list[Logits]: ...
    def truncate(self, sequence: int, rows: int) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Next:
    """The likeliest next row of the sequence that was answered last."""

    sequence: int
    position: int
    token: int

    def is_asked_by(self, request: DecodeRequest) -> bool:
        """Whether a request begins with this row, and wants its logits."""
        return (
            request.sequence == self.sequence
            and request.first_position == self.position
            and (len(request.inputs) == 1 or request.all_outputs)
            and int(request.inputs[0]) == self.token
        )


class RunAhead:
    """At most one guess, of the sequence that has the engine to itself."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._sequence = -1
        self._next: _Next | None = None
        self._logits: Logits | None = None
        self._streak = 0
        self._needed = MIN_STREAK
        self._hits = 0
        self._works = True

    def answered(self, request: DecodeRequest, held_rows: int, newest: RowOutput) -> None:
        """A sequence got the logits behind its last row."""
        sequence = request.sequence
        if sequence == self._sequence and not (request.all_outputs and len(request.inputs) > 1):
            self._next = _Next(sequence, held_rows, int(newest.ids[0]))

    def asked(self, request: DecodeRequest) -> Logits | None:
        """A request is about to be taken on: its one row's logits if they were guessed, else nothing is left of a
        guess."""
        expected, self._next = self._next, None
        if request.sequence != self._sequence:
            self._sequence, self._streak = request.sequence, 0
        elif expected is not None and (len(request.inputs) == 1 or request.all_outputs):
            self._streak = self._streak + 1 if expected.is_asked_by(request) else 0
        logits = self._logits
        if logits is None or expected is None:
            return None
        if not expected.is_asked_by(request):
            self._take_back(expected)
            if len(request.inputs) == 1 or request.all_outputs:  # a new prompt says nothing against guessing
                self._needed, self._hits = min(2 * self._needed, MAX_STREAK), 0
            return None
        self._logits = None
        self._hits += 1
        if self._hits >= self._needed:
            self._needed, self._hits = max(MIN_STREAK, self._needed // 2), 0
        return logits

    def drop(self, sequence: int) -> None:
        """A sequence is emptied: what was expected of it is void."""
        if self._next is not None and self._next.sequence == sequence:
            expected, self._next = self._next, None
            if self._logits is not None:
                self._take_back(expected)

    @property
    def ready(self) -> bool:
        """Whether `decode` would do something worth while now. Only asked while no job waits."""
        return (
            self._works
            and self._next is not None
            and self._logits is None
            and self._streak >= self._needed
            and self._next.position < self._decoder.context_rows
        )

    def decode(self) -> None:
        """Decode the likeliest next row, to have it when it is asked for."""
        guess = self._next
        if guess is None:
            return
        ids: Ids = np.array([guess.token], dtype=np.int32)
        try:
            (self._logits,) = self._decoder.decode([Rows(guess.sequence, guess.position, ids, 1)])
        except BatchFailed:
            # Whoever asks for this row hears the reason; rows that a failed batch left behind are cut off.
            self._works = False
            self._take_back(guess)

    def _take_back(self, guess: _Next) -> None:
        self._logits = None
        if not self._decoder.truncate(guess.sequence, guess.position):
            # The next row finds its place taken, fails by name and empties the sequence. This model is not guessed
            # for again; all architectures that are served can cut back anywhere.
            self._works = False
