"""Which rows go into the next batch: many sequences share one model, and none waits for another's long prompt.

A batch is either all *short* jobs (decode rows, few rows left) or one *slice* of a long one, which take turns; the two
kinds alternate, short ones first. No clock and no I/O: jobs in, frames out.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from local_worker.engine.frames import Failure, FrameRefused
from local_worker.engine.hidden import are_usable, hidden_frame
from local_worker.engine.messages import (
    MAX_TOP_K,
    DecodeRequest,
    Hidden,
    Ids,
    Logits,
    RowOutput,
    Ticket,
    failure_frame,
    rows_frame,
)
from local_worker.engine.role import Role
from local_worker.engine.rows import BatchFailed, Rows
from local_worker.engine.run_ahead import RunAhead
from local_worker.engine.slices import slice_of
from local_worker.engine.top_k import TopK

SHORT_ROWS = 16
"""A job with no more rows than this goes with the decode rows: a token, or a window of drafted ones."""
MAX_OUTPUT_ROWS = 64
"""Rows with logits in one slice: each costs vocab_size floats in llama.cpp's buffer."""


class Decoder(Protocol):
    """What the scheduler needs of a model."""

    vocab_size: int
    context_rows: int
    sequences: int
    batch_rows: int
    n_embd: int
    role: Role

    def decode(self, parts: Sequence[Rows]) -> list[Logits]: ...
    def truncate(self, sequence: int, rows: int) -> bool: ...


class Outlet(Protocol):
    """Who sends rows to other engines; see `local_worker.engine.lane_desk`."""

    def row(self, ticket: Ticket, position: int, rows: Hidden) -> bool: ...
    def logits(self, ticket: Ticket, position: int, sequence: int, row: Logits) -> None: ...


@dataclass(slots=True)
class _Job:
    request: DecodeRequest
    done: int = 0

    @property
    def left(self) -> int:
        return len(self.request.inputs) - self.done

    def take(self, rows: int) -> Rows:
        """The next rows of this job as a part of a batch."""
        rows = min(rows, self.left)
        inputs = self.request.inputs[self.done : self.done + rows]
        outputs = rows if self.request.all_outputs else int(rows == self.left)
        return Rows(self.request.sequence, self.request.first_position + self.done, inputs, outputs)


class Scheduler:
    """Jobs of all sequences, at most one a sequence, and how many rows each sequence holds."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._top_k = TopK(decoder.vocab_size)
        self._ahead = RunAhead(decoder)
        self._jobs: dict[int, _Job] = {}
        self._turns: deque[int] = deque()  # sequences with a long job, next one first
        self._held = [0] * decoder.sequences
        self._slice_is_due = False
        self._answered: list[int] = []
        self.sequences = decoder.sequences
        self.outlet: Outlet | None = None

    @property
    def busy(self) -> bool:
        """Is there anything to decode?"""
        return bool(self._jobs)

    @property
    def may_run_ahead(self) -> bool:
        """Whether nothing waits and the likeliest next row is worth decoding."""
        return not self._jobs and self._ahead.ready

    def run_ahead(self) -> None:
        """Decode the likeliest next row before it is asked for; see `local_worker.engine.run_ahead`."""
        self._ahead.decode()

    def held_rows(self, sequence: int) -> int:
        """Rows of a sequence that stand in the KV cache."""
        return self._held[sequence]

    @property
    def has_short(self) -> bool:
        """Whether the next batch will be one of short jobs."""
        if self._turns and self._slice_is_due:
            return False
        return bool(self.short)

    @property
    def short(self) -> list[int]:
        """Sequences with short jobs, the one that waits longest first."""
        return [sequence for sequence, job in self._jobs.items() if job.left <= SHORT_ROWS]

    @property
    def has_long(self) -> bool:
        """Whether a job waits that goes in slices."""
        return bool(self._turns)

    @property
    def answered(self) -> list[int]:
        """Sequences whose calls the last batch answered."""
        return self._answered

    def submit(self, request: DecodeRequest) -> list[bytes]:
        """Take a request on, or answer at once why not."""
        refusal = self._refusal(request)
        sequence = request.sequence
        if refusal is not None:
            held = self._held[sequence] if sequence < len(self._held) else 0
            return [failure_frame(request.call, *refusal, held)]
        guessed = self._ahead.asked(request)
        if guessed is not None:
            self._jobs[sequence] = job = _Job(request)
            answers = self._answer(job.take(1), guessed)
            if len(request.inputs) - 1 > SHORT_ROWS:
                self._turns.append(sequence)
            return answers
        if request.first_position < self._held[sequence]:
            if not self._decoder.truncate(sequence, request.first_position):
                self._empty(sequence)
                message = f"this model cannot cut a sequence back to row {request.first_position}"
                return [failure_frame(request.call, Failure.DECODE_FAILED, message)]
            self._held[sequence] = request.first_position
        self._jobs[sequence] = _Job(request)
        if len(request.inputs) > SHORT_ROWS:
            self._turns.append(sequence)
        return []

    def decode_ahead(self, sequence: int, position: int, inputs: Ids | Hidden) -> Hidden | Logits | None:
        """What becomes of a row that nobody has asked for, [1, …]; None where it cannot be had.

        Hidden states must be of the model's width, and usable. The row is in no count, and stands in the KV cache
        until `keep_ahead` or `take_back_ahead`.
        """
        decoder = self._decoder
        fits = position == self._held[sequence] < decoder.context_rows
        if self._jobs or not fits or (inputs.ndim == 1 and self._wrong_inputs(inputs)):
            return None
        try:
            (rows,) = decoder.decode([Rows(sequence, position, inputs, 1)])
        except BatchFailed:
            self.take_back_ahead(sequence, position)  # whoever asks for this row hears the reason
            return None
        if not decoder.role.gives_hidden:
            return rows.copy()  # the next computation writes over them
        if not are_usable(rows):
            self.take_back_ahead(sequence, position)
            return None
        return rows

    def keep_ahead(self, sequence: int, rows: int) -> None:
        """What was decoded ahead was asked for: the sequence holds so many rows now."""
        self._held[sequence] = rows

    def output_of(self, row: Logits, position: int, top_k: int) -> RowOutput:
        """What a client gets of one row [vocab_size].

        Raises:
            ArithmeticError: they are not all numbers.
        """
        return self._top_k.read(row, position, top_k)

    def take_back_ahead(self, sequence: int, position: int) -> None:
        """What was decoded ahead is not wanted."""
        self._decoder.truncate(sequence, position)

    def _refusal(self, request: DecodeRequest) -> tuple[Failure, str] | None:
        sequence, first, count = request.sequence, request.first_position, len(request.inputs)
        if sequence >= len(self._held):
            return Failure.DECODE_REFUSED, f"sequence {sequence} of {len(self._held)}"
        if sequence in self._jobs:
            return Failure.BUSY, f"sequence {sequence} is still decoding"
        if first > self._held[sequence]:
            return (
                Failure.DECODE_REFUSED,
                f"rows from {first} on, but the sequence holds {self._held[sequence]}",
            )
        if count == 0 or not 1 <= request.top_k <= MAX_TOP_K:
            return Failure.DECODE_REFUSED, f"{count} rows with {request.top_k} logits each"
        if first + count > self._decoder.context_rows:
            return (
                Failure.CONTEXT_FULL,
                f"{first + count} rows, the context holds {self._decoder.context_rows}",
            )
        wrong = self._wrong_inputs(request.inputs)
        return (Failure.DECODE_REFUSED, wrong) if wrong else None

    def _wrong_inputs(self, inputs: Ids | Hidden) -> str:
        """Why this model cannot take these rows; empty where it can."""
        role, wants_hidden = self._decoder.role, self._decoder.role.takes_hidden
        if (inputs.ndim == 2) != wants_hidden:
            wanted, got = ("hidden states", "token ids") if wants_hidden else ("token ids", "hidden states")
            return f"layers {role.first_layer}:{role.end_layer} take {wanted}, not {got}"
        if wants_hidden:
            if inputs.shape[1] != self._decoder.n_embd:
                return (
                    f"hidden states of {inputs.shape[1]} numbers a row, this model has {self._decoder.n_embd}"
                )
            return "" if are_usable(inputs) else "hidden states that are not all numbers of a usable size"
        low, high = int(inputs.min()), int(inputs.max())
        if low < 0 or high >= self._decoder.vocab_size:
            return f"token {low if low < 0 else high} is outside 0..{self._decoder.vocab_size - 1}"
        return ""

    def cancel(self, call: int) -> list[bytes]:
        """Stop a job before its next row; nothing happens if it is answered already."""
        for sequence, job in list(self._jobs.items()):
            if job.request.call == call:
                self._drop(sequence)
                message = f"cancelled after {job.done} of {len(job.request.inputs)} rows"
                return [failure_frame(call, Failure.CANCELLED, message, self._held[sequence])]
        return []

    def clear(self, sequence: int) -> list[bytes]:
        """Empty a sequence, so that it can serve another session."""
        if sequence >= len(self._held):
            raise FrameRefused(f"sequence {sequence} of {len(self._held)}")
        job = self._jobs.get(sequence)
        answers = self.cancel(job.request.call) if job else []
        self._empty(sequence)
        return answers

    def step(self, chosen: Sequence[int] = ()) -> list[bytes]:
        """Decode one batch and return the answers that came out of it.

        Args:
            chosen: sequences with short jobs, of which a batch of short ones is made, around the first; empty: all.
        """
        short = list(chosen) or self.short
        if self._turns and (self._slice_is_due or not short):
            parts = [self._slice(is_shared=self._slice_is_due)]
            self._slice_is_due = False
        elif short:
            parts = self._short(short)
            self._slice_is_due = True
        else:
            return []
        self._answered = [
            part.sequence for part in parts if len(part.inputs) == self._jobs[part.sequence].left
        ]
        try:
            logits = self._decoder.decode(parts)
        except BatchFailed as error:
            return self._fail((part.sequence for part in parts), str(error))
        answers: list[bytes] = []
        for part, rows in zip(parts, logits, strict=True):
            answers += self._answer(part, rows)
        return answers

    def _short(self, sequences: list[int]) -> list[Rows]:
        """The jobs that are computed together with the first one: its neighbours'.

        llama.cpp computes neighbouring streams in one go, and others one after the other. Whoever is no neighbour
        would only make the others wait for their answers; it has its turn next, with neighbours that came meanwhile.
        """
        if len(sequences) == 1:
            return [self._jobs[sequences[0]].take(SHORT_ROWS)]
        waiting, first = set(sequences), sequences[0]
        above = itertools.takewhile(waiting.__contains__, itertools.count(first + 1))
        below = itertools.takewhile(waiting.__contains__, itertools.count(first - 1, -1))
        chosen, room = [], self._decoder.batch_rows
        for sequence in (first, *above, *below):
            if self._jobs[sequence].left <= room:
                chosen.append(sequence)
                room -= self._jobs[sequence].left
        return [self._jobs[sequence].take(SHORT_ROWS) for sequence in sorted(chosen)]

    def _slice(self, *, is_shared: bool) -> Rows:
        """The next rows of whose turn it is; alone, for llama.cpp cuts those of several so that they fit together."""
        sequence = self._turns.popleft()
        job = self._jobs[sequence]
        rows = slice_of(job.left, self._decoder.batch_rows, is_shared=is_shared)
        if job.request.all_outputs and not self._decoder.role.gives_hidden:
            rows = min(rows, MAX_OUTPUT_ROWS)
        if job.left - rows > SHORT_ROWS:
            self._turns.append(sequence)
        return job.take(rows)

    def _answer(self, part: Rows, logits: Logits) -> list[bytes]:
        job = self._jobs[part.sequence]
        job.done += len(part.inputs)
        held = self._held[part.sequence] = part.first_position + len(part.inputs)
        if self._decoder.role.gives_hidden:
            return self._hand_on(part, held, logits)
        first = held - len(logits)
        rows: list[RowOutput] = []
        ticket = job.request.ticket
        if ticket is not None and self.outlet is not None and len(logits):
            # First of all: the first stage begins while the rest is read and told.
            self.outlet.logits(ticket, held, part.sequence, logits[-1])
        try:
            for index, row in enumerate(logits):
                rows.append(self._top_k.read(row, first + index, job.request.top_k))
        except ArithmeticError as error:
            return self._fail([part.sequence], str(error))
        last = job.left == 0
        if last:
            self._drop(part.sequence)
            if self._decoder.role.is_whole:
                self._ahead.answered(job.request, held, rows[-1])
        return [rows_frame(job.request.call, last, held, rows)] if last or rows else []

    def _hand_on(self, part: Rows, held: int, rows: Hidden) -> list[bytes]:
        """Rows that go to the next chunk, slice by slice: it need not wait for the whole prompt."""
        job = self._jobs[part.sequence]
        if not are_usable(rows):
            return self._fail(
                [part.sequence], f"the rows at position {part.first_position} are not all numbers"
            )
        ticket = job.request.ticket
        sent = ticket is not None and self.outlet is not None and self.outlet.row(ticket, held - 1, rows)
        last = job.left == 0
        if last:
            self._drop(part.sequence)
        return [hidden_frame(job.request.call, last, held, part.first_position, rows, sent=sent)]

    def _fail(self, sequences: Iterable[int], message: str) -> list[bytes]:
        answers = []
        for sequence in list(sequences):
            call = self._jobs[sequence].request.call
            self._drop(sequence)
            self._empty(sequence)
            answers.append(failure_frame(call, Failure.DECODE_FAILED, message))
        return answers

    def _drop(self, sequence: int) -> None:
        del self._jobs[sequence]
        if sequence in self._turns:
            self._turns.remove(sequence)

    def _empty(self, sequence: int) -> None:
        self._ahead.drop(sequence)
        self._decoder.truncate(sequence, 0)
        self._held[sequence] = 0
