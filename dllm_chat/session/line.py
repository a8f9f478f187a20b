"""Several stages that work on one answer: each takes what the one before hands on, the last one answers.

The client tells every stage on a channel of its own which rows are to come and pays it for them; the rows themselves go
from stage to stage. So one message to each stage asks for a token, and the answer comes straight from the last one.

A stage that is new in the line holds no rows. The others keep theirs: the stage before it sends what it sent before
once more, to the new one only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NoReturn

from dllm_chat.session.decoder import RowLogits
from dllm_chat.session.front_desk import LegFailed, gather_vocabulary
from dllm_chat.session.leg import ANSWER_TIMEOUT_S, LOSSES_MAX, RowsLost
from dllm_chat.session.stage_leg import StageFailed, StageLeg
from dllm_chat.session.text_batches import text_batches
from dllm_protocol.encoding import Record
from dllm_protocol.messages import (
    FORM_ANY,
    OUTPUTS_ALL,
    OUTPUTS_HELD,
    OUTPUTS_LAST,
    OUTPUTS_NONE,
    REFUSED_NEXT,
    REFUSED_PREVIOUS,
    REFUSED_REQUEST,
    ROW_DRAFTED,
    ROW_KEPT,
    ROW_REPLAYED,
    Acknowledge,
    Done,
    Goodbye,
    Linked,
    Output,
    Pong,
    Refused,
    Tokens,
    Unlinked,
    VocabularyPart,
    unpack_floats,
    unpack_ids,
)
from dllm_protocol.session.ledger import WINDOW_PROMPT_ROWS, Ledger
from dllm_protocol.session.rows import charged
from dllm_protocol.session.transcript import RowLabel
from dllm_protocol.vocabulary import Vocabulary

BEAT_S: Final = 1.0
"""While an answer is awaited, every stage is asked for a sign of life so often."""
SILENT_S: Final = 2.5
"""A stage that gave none for so long is taken for dead."""
LINK_TIMEOUT_S: Final = 10.0
REPLAYS_AHEAD: Final = 4


class Line:
    """Stages in order; the `Decoder` of a route that has several. Failures come out as `StageFailed`."""

    def __init__(
        self,
        legs: Sequence[StageLeg],
        ledger: Ledger,
        store: Callable[[], None],
        label: RowLabel,
        held: Sequence[int],
        generation: int,
        clock_s: Callable[[], float],
    ) -> None:
        """Take over the legs; `link` must follow.

        Args:
            legs: in the order of the stages; what each holds for sure stands in its ``rows``.
            store: called whenever the ledger changed, before anything is sent on its strength.
            label: names rows for stages that see no token ids.
            held: token ids that the legs' ``rows`` are rows of.
            generation: counts up with every line of a session.
        """
        self.legs = list(legs)
        self.held = list(held)
        self.round_trip_s: float | None = None
        self.generation = generation
        self._ledger = ledger
        self._store = store
        self._label = label
        self._clock_s = clock_s
        self._pinged_s = 0.0
        self._ping_trips_s: dict[bytes, float] = {}
        self._linked: set[bytes] = set()
        self._outputs: dict[int, deque[RowLogits]] = {}
        self._given_up = {request for leg in legs for request in leg.unanswered}
        self._cancelled: set[int] = set()
        self._answers: dict[int, Tokens] = {}
        self._parts: deque[VocabularyPart] = deque()
        self._refusals: deque[tuple[StageLeg, Refused]] = deque()
        self._failure: StageFailed | None = None
        self._losses = 0
        self._changed = asyncio.Event()
        for leg in self.legs:
            leg.read(self._take, self._changed.set)

    # -- what is asked about the line

    @property
    def context_rows(self) -> int:
        """Longest sequence that all stages hold."""
        return min(leg.ready.context_rows for leg in self.legs)

    @property
    def top_k(self) -> int:
        """Most logits of a row, from the last stage."""
        return self.legs[-1].ready.top_k

    @property
    def is_cancelling(self) -> bool:
        """Whether a stage may still be at work on something that was cancelled."""
        return bool(self._cancelled)

    # -- standing in line

    async def link(self, forms: Sequence[int] = ()) -> None:
        """Have each stage link up with the next one.

        Args:
            forms: how hidden states go from each stage to the next, where that was settled before.
        """
        last = len(self.legs) - 1
        self._linked.clear()
        for index, leg in enumerate(self.legs):
            previous = self.legs[index - 1].provider if index else b""
            behind = self.legs[index + 1].provider if index < last else b""
            form = forms[index] if index < len(forms) else FORM_ANY
            await leg.send(leg.leg.neighbours(self.generation, previous, behind, form))
        await self._until(lambda: len(self._linked) == len(self.legs), LINK_TIMEOUT_S, self._unlinked)

    def _unlinked(self) -> StageFailed:
        index = next(index for index, leg in enumerate(self.legs) if leg.provider not in self._linked)
        leg = self.legs[index]
        return StageFailed(leg.provider, f"stage {index + 1} did not link up within {LINK_TIMEOUT_S:g} s")

    # -- words

    async def tokenize(self, texts: Sequence[bytes]) -> list[list[int]]:
        """See `Decoder`."""
        ids: list[list[int]] = []
        first = self.legs[0]
        for batch in text_batches(texts):
            request, frame = first.leg.tokenize(batch)
            await self._send(first, frame)
            await self._until(lambda number=request: number in self._answers, ANSWER_TIMEOUT_S, self._mute)  # type: ignore[misc]
            answer = self._answers.pop(request)
            if len(answer.ids) != len(batch):
                raise StageFailed(
                    first.provider, f"{len(batch)} texts were to be tokenised, {len(answer.ids)} were"
                )
            ids += [unpack_ids(packed) for packed in answer.ids]
        return ids

    def _mute(self) -> StageFailed:
        return StageFailed(
            self.legs[0].provider, f"the first stage did not answer within {ANSWER_TIMEOUT_S:g} s"
        )

    async def vocabulary(self, expected_hash: bytes) -> Vocabulary:
        """See `Decoder`."""

        async def part_from(offset: int) -> VocabularyPart:
            await self._send(self.legs[0], self.legs[0].leg.get_vocabulary(offset))
            await self._until(lambda: bool(self._parts), ANSWER_TIMEOUT_S, self._mute)
            return self._parts.popleft()

        try:
            return await gather_vocabulary(part_from, expected_hash)
        except StageFailed:
            raise
        except LegFailed as error:
            raise StageFailed(self.legs[0].provider, error.message, hint=error.hint) from error

    # -- rows

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
        try:
            request = await self._ask(len(self.held), [token], ROW_KEPT, top_k, OUTPUTS_LAST)
            return await self.row_of(request)
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

    async def row_of(self, request: int) -> RowLogits:
        """See `Decoder`."""
        outputs, last = self._outputs[request], self.legs[-1]
        await self._until(
            lambda: bool(outputs) or request not in last.unanswered,
            ANSWER_TIMEOUT_S,
            lambda: self._stuck(request),
        )
        if not outputs:
            self._raise_failures()
            raise self._stuck(request)
        return outputs.popleft()

    async def cancel(self, requests: Sequence[int]) -> None:
        """See `Decoder`."""
        for request in sorted(requests, reverse=True):
            for leg in self.legs:
                if request in leg.unanswered:
                    self._cancelled.add(request)
                    self._given_up.add(request)
                    await leg.send(leg.leg.cancel(request))

    def pass_over(self, requests: Iterable[int]) -> None:
        """See `Decoder`."""
        for request in requests:
            self._outputs.pop(request, None)
            self._given_up.add(request)

    async def ping(self) -> None:
        """See `Decoder`: the way to the first stage, from stage to stage, and from the last one back."""
        self._pinged_s = self._clock_s()
        for leg in {id(leg): leg for leg in (self.legs[0], self.legs[-1])}.values():
            await leg.ping()

    async def seal_turn(self) -> None:
        """See `Decoder`."""
        for leg in self.legs:
            frame = leg.leg.seal_turn()
            if frame is not None:
                await self._send(leg, frame)
        await self._until(self._all_acknowledged, ANSWER_TIMEOUT_S, self._without_ack)

    def _all_acknowledged(self) -> bool:
        return all(self._acknowledged(leg) for leg in self.legs)

    def _acknowledged(self, leg: StageLeg) -> bool:
        acks = (ack.ack for ack in self._ledger.state.acks if ack.ack.provider == leg.provider)
        return next((ack.n for ack in acks), 0) >= leg.leg.newest_voucher_n

    def _without_ack(self) -> StageFailed:
        leg = next(leg for leg in self.legs if not self._acknowledged(leg))
        return StageFailed(leg.provider, "a stage did not acknowledge the turn's last voucher")

    async def close(self, reason: str) -> None:
        """See `Decoder`."""
        await asyncio.gather(*(leg.close(reason) for leg in self.legs))

    # -- handing legs over to another line

    async def give_up(self) -> None:
        """Cancel whatever stages are still asked for: another line goes on with those that live."""
        for leg in self.legs:
            try:
                await self._give_up_on(leg)
            except StageFailed:
                continue  # found out again when it is to link up

    # -- inside

    async def _decode(self, ids: list[int], kind: int, top_k: int) -> RowLogits:
        common = min(_common(self.held, ids), len(ids) - 1)
        for leg in self.legs:
            leg.rows = min(leg.rows, common)
        first = max(leg.rows for leg in self.legs)
        del self.held[first:]
        await self._level(first)
        sent: deque[int] = deque()
        while True:
            part = ids[first : first + WINDOW_PROMPT_ROWS]
            first += len(part)
            last = first == len(ids)
            sent.append(
                await self._ask(first - len(part), part, kind, top_k, OUTPUTS_LAST if last else OUTPUTS_NONE)
            )
            if last:
                return await self.row_of(sent[-1])
            # Slices follow each other through the line: while one stage has the second, the next has the first.
            while len(sent) > len(self.legs):
                await self._all_done(sent.popleft())

    async def _level(self, rows: int) -> None:
        """Bring every stage to so many rows of `held`; whoever has them is left alone."""
        index = 0
        while index < len(self.legs):
            leg = self.legs[index]
            if leg.rows >= rows:
                index += 1
                continue
            source = self.legs[index - 1] if index else None
            try:
                await self._catch_up(leg, source, rows)
            except RowsLost as lost:
                if source is None or lost.provider != source.provider:
                    raise
                # What was sent before is not kept any more: the stage before computes it once more.
                await self._give_up_on(leg)
                source.rows = min(source.rows, leg.rows)
                index -= 1

    async def _catch_up(self, leg: StageLeg, source: StageLeg | None, rows: int) -> None:
        """Have one stage decode what it lacks, from token ids or from what the stage before sends again."""
        sent: deque[int] = deque()
        first = leg.rows
        while first < rows or sent:
            if first < rows and len(sent) < REPLAYS_AHEAD:
                part = self.held[first : min(first + WINDOW_PROMPT_ROWS, rows)]
                sent.append(await self._replay_rows(leg, source, first, part))
                first += len(part)
                continue
            request = sent.popleft()
            await self._until(
                lambda number=request: number not in leg.unanswered,  # type: ignore[misc]
                ANSWER_TIMEOUT_S,
                lambda: StageFailed(
                    leg.provider,
                    f"a stage did not catch up within {ANSWER_TIMEOUT_S:g} s",
                    behind=source.provider if source is not None else b"",
                ),
            )
            self._raise_failures()

    async def _replay_rows(self, leg: StageLeg, source: StageLeg | None, first: int, ids: list[int]) -> int:
        request = self._next_request()
        top_k = self.top_k
        self._ledger.require_room({leg.provider: charged(ROW_REPLAYED, len(ids), OUTPUTS_HELD)})
        leg.asked(request, first, len(ids))
        if source is None:
            _, frame = leg.leg.decode(
                first, ids, kind=ROW_REPLAYED, top_k=top_k, outputs=OUTPUTS_HELD, request=request
            )
            await self._send(leg, frame)
            return request
        frame = leg.leg.expect(
            request,
            first,
            len(ids),
            kind=ROW_REPLAYED,
            top_k=top_k,
            outputs=OUTPUTS_HELD,
            label=self._label.of(self.held[: first + len(ids)]),
            gives_logits=False,
        )
        await self._send(leg, frame)
        await self._send(source, source.leg.resend(request, first, len(ids)))
        return request

    async def _ask(self, first: int, ids: list[int], kind: int, top_k: int, outputs: int) -> int:
        """Ask every stage for rows; returns the request's number, the same at all of them.

        Raises:
            DepositUsedUp: nobody was asked.
        """
        rows = charged(kind, len(ids), outputs)
        self._ledger.require_room({leg.provider: rows for leg in self.legs})
        request = self._next_request()
        label = self._label_behind(first, ids)
        last = self.legs[-1]
        frames = []
        for index, leg in enumerate(self.legs):
            if index == 0:
                _, frame = leg.leg.decode(
                    first,
                    ids,
                    kind=kind,
                    top_k=top_k,
                    outputs=outputs,
                    request=request,
                    gives_logits=leg is last,
                )
            else:
                frame = leg.leg.expect(
                    request,
                    first,
                    len(ids),
                    kind=kind,
                    top_k=top_k,
                    outputs=outputs,
                    label=label,
                    gives_logits=leg is last,
                )
            leg.asked(request, first, len(ids))
            frames.append(frame)
        self._outputs[request] = deque()
        self.held += ids
        self._store()
        await self._send_each(frames)
        return request

    async def _send_each(self, frames: Sequence[bytes]) -> None:
        """One frame to each stage. A sealed frame must go out, or none behind it opens: so all are sent before one
        that could not be is told."""
        failure: StageFailed | None = None
        for leg, frame in zip(self.legs, frames, strict=True):
            try:
                await leg.send(frame)
            except StageFailed as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _label_behind(self, first: int, ids: list[int]) -> bytes:
        if self._label.rows != first or len(self.held) != first:
            self._label.restart(self.held[:first])
        return self._label.extended(ids)

    def _next_request(self) -> int:
        return 1 + max(leg.leg.last_request for leg in self.legs)

    async def _all_done(self, request: int) -> None:
        await self._until(
            lambda: all(request not in leg.unanswered for leg in self.legs),
            ANSWER_TIMEOUT_S,
            lambda: self._stuck(request),
        )
        self._outputs.pop(request, None)

    def _stuck(self, request: int) -> StageFailed:
        """Who keeps a request up: the first that has not done it."""
        for index, leg in enumerate(self.legs):
            if request in leg.unanswered:
                return StageFailed(
                    leg.provider,
                    f"stage {index + 1} did not do its rows within {ANSWER_TIMEOUT_S:g} s",
                    behind=self.legs[index - 1].provider if index else b"",
                )
        return StageFailed(
            self.legs[-1].provider, "the last stage gave no logits for rows that were asked for"
        )

    async def _note_loss(self, lost: Exception) -> None:
        """Begin anew with a stage that lost its rows, unless it does so all the time."""
        self._losses += 1
        provider = lost.provider if isinstance(lost, RowsLost) else self.legs[-1].provider
        if self._losses > LOSSES_MAX:
            raise StageFailed(provider, f"a stage lost its rows {self._losses} times: {lost}") from lost
        for leg in self.legs:
            await self._give_up_on(leg)
            if leg.provider == provider:
                leg.rows = 0
        self._outputs.clear()

    async def _give_up_on(self, leg: StageLeg) -> None:
        """Whatever a stage is still asked for is not wanted any more."""
        for request in leg.unanswered:
            self._given_up.add(request)
            await leg.send(leg.leg.cancel(request))

    async def _send(self, leg: StageLeg, frame: bytes) -> None:
        self._store()
        await leg.send(frame)

    async def _until(
        self, holds: Callable[[], bool], limit_s: float, late: Callable[[], StageFailed]
    ) -> None:
        """Wait for something, with an ear on every stage.

        Raises:
            StageFailed: a stage is of no more use; or ``late``, when it took longer than ``limit_s``.
            RowsLost: a stage no longer holds rows that it held.
        """
        deadline_s = self._clock_s() + limit_s
        while not holds():
            self._raise_failures()
            self._changed.clear()
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._changed.wait()
            except TimeoutError:
                await self._beat()
            if self._clock_s() > deadline_s and not holds():
                raise late()

    async def _beat(self) -> None:
        now_s = self._clock_s()
        for index, leg in enumerate(self.legs):
            silent_s = now_s - leg.silent_since_s if leg.silent_since_s is not None else 0.0
            if silent_s > SILENT_S:
                raise StageFailed(
                    leg.provider, f"stage {index + 1} gave no sign of life for {silent_s:.1f} s"
                )
            await leg.ping()

    def _raise_failures(self) -> None:
        for index, leg in enumerate(self.legs):
            if leg.failure is not None:
                raise StageFailed(
                    leg.provider, f"the channel to stage {index + 1} failed: {leg.failure}"
                ) from leg.failure
        if self._failure is not None:
            raise self._failure
        if self._refusals:
            self._refused(*self._refusals.popleft())

    def _refused(self, leg: StageLeg, refused: Refused) -> NoReturn:
        index = self.legs.index(leg)
        words = refused.message or str(refused.reason)
        if refused.reason == REFUSED_REQUEST and (leg.rows or self.held):
            lost = RowsLost(f"stage {index + 1} lost rows: {words}")
            lost.provider = leg.provider
            raise lost
        if refused.reason == REFUSED_PREVIOUS and index:
            raise StageFailed(self.legs[index - 1].provider, f"stage {index}: {words}", accuser=leg.provider)
        if refused.reason == REFUSED_NEXT and index + 1 < len(self.legs):
            raise StageFailed(
                self.legs[index + 1].provider, f"stage {index + 2}: {words}", accuser=leg.provider
            )
        raise StageFailed(leg.provider, f"stage {index + 1} refused: {words}")

    def _take(self, leg: StageLeg, message: Record) -> None:
        """One message of one stage."""
        match message:
            case Output():
                waiting = self._outputs.get(message.request)
                if waiting is not None:
                    logits = RowLogits(
                        message.position, unpack_ids(message.ids), unpack_floats(message.logits)
                    )
                    waiting.append(logits)
            case Done() | Refused():
                self._answered(leg, message)
            case Tokens():
                self._answers[message.request] = message
            case VocabularyPart():
                self._parts.append(message)
            case Linked() if message.generation == self.generation:
                leg.form, leg.link_round_trip_s = message.form, message.round_trip_us / 1e6
                self._linked.add(leg.provider)
            case Unlinked() if message.generation == self.generation:
                self._lost_link(leg, message.message)
            case Pong():
                self._note_pong(leg)
            case Goodbye():
                self._failure = StageFailed(leg.provider, f"a stage said goodbye: {message.message}")
            case Acknowledge() | _:
                pass  # the ledger has taken it

    def _answered(self, leg: StageLeg, message: Done | Refused) -> None:
        if all(message.request not in one.unanswered for one in self.legs):
            self._cancelled.discard(message.request)
        if isinstance(message, Refused) and message.request not in self._given_up:
            self._refusals.append((leg, message))

    def _lost_link(self, leg: StageLeg, words: str) -> None:
        index = self.legs.index(leg)
        if index + 1 < len(self.legs):
            self._failure = StageFailed(
                self.legs[index + 1].provider, f"stage {index + 2}: {words}", accuser=leg.provider
            )

    def _note_pong(self, leg: StageLeg) -> None:
        ends = {self.legs[0].provider, self.legs[-1].provider}
        if self.round_trip_s is not None or leg.provider not in ends or not self._pinged_s:
            return
        self._ping_trips_s.setdefault(leg.provider, self._clock_s() - self._pinged_s)
        if ends <= self._ping_trips_s.keys():
            ways_s = sum(self._ping_trips_s[one.provider] for one in (self.legs[0], self.legs[-1]))
            self.round_trip_s = (ways_s + sum(one.link_round_trip_s for one in self.legs)) / 2


def _common(held: Sequence[int], wanted: Sequence[int]) -> int:
    """Length of the common beginning."""
    for index, (one, other) in enumerate(zip(held, wanted, strict=False)):
        if one != other:
            return index
    return min(len(held), len(wanted))
