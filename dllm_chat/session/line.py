"""Several stages that work on one answer: each takes what the one before hands on, the last one answers.

The client tells every stage on a channel of its own which rows are to come and pays it for them; the rows themselves go
from stage to stage. So one message to each stage asks for a token, and the answer comes straight from the last one.

A stage that is new in the line holds no rows. The others keep theirs: the stage before it sends what it sent before
once more, to the new one only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Final

from dllm_chat.session.catching_up import CatchingUp, give_up_on
from dllm_chat.session.decoder import RowLogits, common_rows
from dllm_chat.session.front_desk import LegFailed, gather_tokens, gather_vocabulary
from dllm_chat.session.leg import LOSSES_MAX, RowsLost
from dllm_chat.session.line_ear import LineEar
from dllm_chat.session.pace import Pace
from dllm_chat.session.patience import ANSWER_TIMEOUT_S, patience_s
from dllm_chat.session.request_numbers import RequestNumbers
from dllm_chat.session.stage_leg import StageFailed, StageLeg
from dllm_chat.session.together import Together
from dllm_chat.session.turn_seal import seal_turn
from dllm_protocol.messages import (
    FORM_ANY,
    OUTPUTS_ALL,
    OUTPUTS_LAST,
    OUTPUTS_NONE,
    ROW_DRAFTED,
    ROW_KEPT,
    ROW_PROMPT,
    ROW_REPLAYED,
    Tokens,
    VocabularyPart,
)
from dllm_protocol.session.ledger import WINDOW_PROMPT_ROWS, Ledger
from dllm_protocol.session.rows import charged
from dllm_protocol.session.transcript import RowLabel
from dllm_protocol.vocabulary import Vocabulary

TIMED_ROWS: Final = 4
"""Of every so many rows one is told by every stage: so their pace is known, at a quarter of the messages."""
LINK_TIMEOUT_S: Final = 10.0
SLICES_AHEAD: Final = 7  # no more than eight requests wait at a provider


class Line:
    """Stages in order; the `Decoder` of a route that has several. Failures come out as `StageFailed`."""

    def __init__(
        self,
        legs: Sequence[StageLeg],
        ledger: Ledger,
        store: Callable[[], None],
        label: RowLabel,
        held: Sequence[int],
        together: Together,
        generation: int,
        clock_s: Callable[[], float],
        tolerated: Collection[bytes] = (),
    ) -> None:
        """Take over the legs; `link` must follow.

        Args:
            legs: in the order of the stages; what each holds for sure stands in its ``rows``.
            store: called whenever the ledger changed, before anything is sent on its strength.
            label: names rows for stages that see no token ids.
            held: token ids that the legs' ``rows`` are rows of.
            together: which of them were asked for together.
            generation: counts up with every line of a session.
            tolerated: providers that may be slow, because nobody can stand in for them.
        """
        self.legs = list(legs)
        self.held = list(held)
        self.generation = generation
        self._together = together
        self._ledger = ledger
        self._store = store
        self._label = label
        self._tolerated = frozenset(tolerated)
        self._ear = LineEar(legs, generation, Pace([leg.layers for leg in legs]), clock_s)
        self._numbers = RequestNumbers(self.legs)
        self._losses = 0
        self._slice_rows = 1

    @property
    def speaker(self) -> bytes:
        """See `Decoder`."""
        return self.legs[-1].provider

    @property
    def context_rows(self) -> int:
        """Longest sequence that all stages hold."""
        return min(leg.ready.context_rows for leg in self.legs)

    @property
    def top_k(self) -> int:
        """Most logits of a row, from the last stage."""
        return self.legs[-1].ready.top_k

    @property
    def round_trip_s(self) -> float | None:
        """See `Decoder`."""
        return self._ear.round_trip_s

    @property
    def is_cancelling(self) -> bool:
        """Whether a stage may still be at work on something that was cancelled."""
        return bool(self._ear.cancelled)

    async def link(self, forms: Sequence[int] = ()) -> None:
        """Have each stage link up with the next one.

        Args:
            forms: how hidden states go from each stage to the next, where that was settled before.
        """
        last = len(self.legs) - 1
        self._ear.linked.clear()
        for index, leg in enumerate(self.legs):
            previous = self.legs[index - 1].provider if index else b""
            behind = self.legs[index + 1].provider if index < last else b""
            form = forms[index] if index < len(forms) else FORM_ANY
            ring = self.legs[last - index].provider if index in (0, last) and last else b""
            await leg.send(leg.leg.neighbours(self.generation, previous, behind, form, ring))
        await self._ear.until(lambda: len(self._ear.linked) == len(self.legs), LINK_TIMEOUT_S, self._unlinked)

    def _unlinked(self) -> StageFailed:
        index, leg = next((n, one) for n, one in enumerate(self.legs) if one.provider not in self._ear.linked)
        return StageFailed(leg.provider, f"stage {index + 1} did not link up within {LINK_TIMEOUT_S:g} s")

    async def tokenize(self, texts: Sequence[bytes]) -> list[list[int]]:
        """See `Decoder`."""
        first = self.legs[0]

        async def ask(batch: Sequence[bytes]) -> Tokens:
            request, frame = first.leg.tokenize(batch)
            await self._send(first, frame)
            await self._ear.until(
                partial(self._ear.answers.__contains__, request), ANSWER_TIMEOUT_S, self._mute
            )
            return self._ear.answers.pop(request)

        try:
            return await gather_tokens(texts, ask)
        except StageFailed:
            raise
        except LegFailed as error:
            raise StageFailed(first.provider, error.message) from error

    def _mute(self) -> StageFailed:
        return StageFailed(self.legs[0].provider, f"the first stage gave no answer in {ANSWER_TIMEOUT_S:g} s")

    async def vocabulary(self, expected_hash: bytes) -> Vocabulary:
        """See `Decoder`."""

        async def part_from(offset: int) -> VocabularyPart:
            await self._send(self.legs[0], self.legs[0].leg.get_vocabulary(offset))
            await self._ear.until(lambda: bool(self._ear.parts), ANSWER_TIMEOUT_S, self._mute)
            return self._ear.parts.popleft()

        try:
            return await gather_vocabulary(part_from, expected_hash)
        except StageFailed:
            raise
        except LegFailed as error:
            raise StageFailed(self.legs[0].provider, error.message, hint=error.hint) from error

    async def decode(self, ids: Sequence[int], *, kind: int, top_k: int) -> RowLogits:
        """See `Decoder`. Stages that hold fewer rows than others catch up first."""
        while True:
            try:
                return await self._decode(list(ids), kind, top_k)
            except RowsLost as lost:
                await self._note_loss(lost)
                kind = ROW_REPLAYED

    async def decode_next(self, token: int, top_k: int, *, position: int | None = None) -> RowLogits:
        """See `Decoder`."""
        if position is not None:
            del self.held[position:]
        self._slice_rows = 1
        self._ear.require_pace(len(self.held), self._tolerated)
        try:
            first, quiet = len(self.held), len(self.held) % TIMED_ROWS != 0
            if not quiet:
                await self._ear.all_caught_up()
            request = self._numbers.next_row(first, token)
            await self._ask(first, [token], ROW_KEPT, top_k, OUTPUTS_LAST, is_quiet=quiet, request=request)
            if not quiet:
                self._ear.time_row(request)
            row = await self.row_of(request)
            self._numbers.told(request, row.ids[0])
            self._ear.outputs.pop(request, None)
            return row
        except RowsLost as lost:
            return await self.replay(self.held, lost, top_k)

    async def replay(self, ids: Sequence[int], lost: Exception, top_k: int) -> RowLogits:
        """See `Decoder`."""
        await self._note_loss(lost)
        return await self.decode(list(ids), kind=ROW_REPLAYED, top_k=top_k)

    async def send_window(self, position: int, ids: Sequence[int], top_k: int) -> int:
        """See `Decoder`."""
        del self.held[position:]
        return await self._ask(position, list(ids), ROW_DRAFTED, top_k, OUTPUTS_ALL)

    async def question(self, ids: list[int], top_k: int) -> list[RowLogits]:
        """The logits behind each of a few rows; nothing may be held before, and nothing is afterwards."""
        del self.held[:]
        request = await self._ask(0, ids, ROW_PROMPT, top_k, OUTPUTS_ALL)
        rows = [await self.row_of(request) for _ in ids]
        await self._all_done(request)
        del self.held[:]
        for leg in self.legs:
            leg.rows = 0
        return rows

    async def row_of(self, request: int) -> RowLogits:
        """See `Decoder`."""
        outputs, last = self._ear.outputs[request], self.legs[-1]
        await self._ear.until(
            lambda: bool(outputs) or last.has_answered(request),
            patience_s(self._slice_rows),
            lambda: self._ear.stuck(request),
        )
        if not outputs:
            self._ear.raise_failures()
            raise self._ear.stuck(request)
        return outputs.popleft()

    async def cancel(self, requests: Sequence[int]) -> None:
        """See `Decoder`."""
        for request in sorted(requests, reverse=True):
            for leg in self.legs:
                if not leg.has_answered(request):
                    self._ear.cancelled.add(request)
                    self._ear.given_up.add(request)
                    await leg.send(leg.leg.cancel(request))

    def pass_over(self, requests: Iterable[int]) -> None:
        """See `Decoder`."""
        for request in requests:
            self._ear.outputs.pop(request, None)
            self._ear.given_up.add(request)

    async def ping(self) -> None:
        """See `Decoder`: the way to the first stage, from stage to stage, and from the last one back."""
        await self._ear.ping_ends()

    async def seal_turn(self) -> None:
        """See `Decoder`."""
        await seal_turn(self.legs, self._ear, self._ledger, self._send)
        await self.settle()

    async def settle(self, gone: bytes = b"") -> None:
        """See `LineEar.settle`."""
        await self._ear.settle(gone)

    async def close(self, reason: str) -> None:
        """See `Decoder`."""
        await asyncio.gather(*(leg.close(reason) for leg in self.legs))

    async def give_up(self) -> None:
        """Cancel whatever stages are still asked for: another line goes on with those that live."""
        for leg in self.legs:
            try:
                await give_up_on(self._ear, leg)
            except StageFailed:
                continue  # found out again when it is to link up

    async def _decode(self, ids: list[int], kind: int, top_k: int) -> RowLogits:
        common = min(common_rows(self.held, ids), len(ids) - 1)
        for leg in self.legs:
            leg.rows = min(leg.rows, common)
        first = max(leg.rows for leg in self.legs)
        del self.held[first:]
        *parts, (last, end) = self._together.parts(kind, first, len(ids))
        await self._catching_up().run()
        sent: deque[int] = deque()
        self._slice_rows = min(WINDOW_PROMPT_ROWS, len(ids) - first)
        for begin, until in parts:
            sent.append(await self._ask(begin, ids[begin:until], kind, top_k, OUTPUTS_NONE))
            # Slices follow each other through the line: while one stage has the second, the next has the first.
            while len(sent) > min(len(self.legs), SLICES_AHEAD):
                await self._all_done(sent.popleft())
        return await self.row_of(await self._ask(last, ids[last:end], kind, top_k, OUTPUTS_LAST))

    def _catching_up(self) -> CatchingUp:
        legs, label, held, together = self.legs, self._label, self.held, self._together
        return CatchingUp(
            legs, self._ear, self._ledger, self._store, label, held, together, self._numbers.next
        )

    async def _ask(
        self,
        first: int,
        ids: list[int],
        kind: int,
        top_k: int,
        outputs: int,
        *,
        is_quiet: bool = False,
        request: int = 0,
    ) -> int:
        """Ask every stage for rows; returns the request's number, the same at all of them.

        Args:
            is_quiet: only the last stage says that it is done.
            request: its number, if that matters.

        Raises:
            DepositUsedUp: nobody was asked.
        """
        self._ledger.require_room({leg.provider: charged(kind, len(ids), outputs) for leg in self.legs})
        request, promised = request or self._numbers.next(), self._ledger.state.last_voucher
        entry, *behind = self.legs
        frames = [self._entry_frame(request, first, ids, kind, top_k, outputs, is_quiet and bool(behind))]
        if self._ledger.state.last_voucher is promised:
            # Nothing is promised that must be written down first: it can begin while the others are told.
            await entry.send(frames.pop())
        label = self._label_behind(first, ids)
        for leg in behind:
            quiet = is_quiet and leg is not behind[-1]
            frame = leg.leg.expect(
                request,
                first,
                len(ids),
                kind=kind,
                top_k=top_k,
                outputs=outputs,
                label=label,
                gives_logits=leg is behind[-1],
                quiet=quiet,
            )
            frames.append(frame)
            leg.asked(request, first, len(ids), is_quiet=quiet)
        self._ear.outputs[request] = deque()
        self._together.note(kind, first)
        self.held += ids
        self._store()
        # A sealed frame must go out, or none behind it opens: so all are on their way before a failure is told.
        for leg in reversed(behind):
            leg.post(frames.pop())
        for frame in frames:
            await entry.send(frame)
        return request

    def _entry_frame(
        self, request: int, first: int, ids: list[int], kind: int, top_k: int, outputs: int, quiet: bool
    ) -> bytes:
        entry = self.legs[0]
        ends = entry is self.legs[-1]
        _, frame = entry.leg.decode(
            first,
            ids,
            kind=kind,
            top_k=top_k,
            outputs=outputs,
            request=request,
            gives_logits=ends,
            quiet=quiet,
        )
        entry.asked(request, first, len(ids), is_quiet=quiet)
        return frame

    def _label_behind(self, first: int, ids: list[int]) -> bytes:
        if self._label.rows != first or len(self.held) != first:
            self._label.restart(self.held[:first])
        return self._label.extended(ids)

    async def _all_done(self, request: int) -> None:
        await self._ear.until(
            lambda: all(leg.has_answered(request) for leg in self.legs),
            patience_s(self._slice_rows),
            lambda: self._ear.stuck(request),
        )
        self._ear.outputs.pop(request, None)

    async def _note_loss(self, lost: Exception) -> None:
        """Begin anew with a stage that lost its rows, unless it does so all the time."""
        self._losses += 1
        provider = lost.provider if isinstance(lost, RowsLost) else self.legs[-1].provider
        if self._losses > LOSSES_MAX:
            raise StageFailed(provider, f"a stage lost its rows {self._losses} times: {lost}") from lost
        for leg in self.legs:
            await give_up_on(self._ear, leg)
            if leg.provider == provider:
                leg.rows = 0
        self._ear.outputs.clear()

    async def _send(self, leg: StageLeg, frame: bytes) -> None:
        self._store()
        await leg.send(frame)
