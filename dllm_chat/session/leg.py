"""One open leg: requests to a provider and their answers, with deadlines, over a sealed channel."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from dllm_chat.session.decoder import RowLogits, common_rows
from dllm_chat.session.front_desk import LegFailed, VocabularyRefused, gather_tokens, gather_vocabulary
from dllm_chat.session.leg_wire import LegWire
from dllm_chat.session.pace import Pace
from dllm_chat.session.patience import ANSWER_TIMEOUT_S, patience_s
from dllm_chat.session.together import FEW_ROWS
from dllm_chat.session.token_log import TokenLog
from dllm_protocol.encoding import Record
from dllm_protocol.messages import (
    OUTPUTS_ALL,
    OUTPUTS_LAST,
    OUTPUTS_NONE,
    REFUSED_BUSY,
    REFUSED_DRAINING,
    REFUSED_ENGINE,
    REFUSED_REQUEST,
    ROW_DRAFTED,
    ROW_KEPT,
    ROW_REPLAYED,
    Acknowledge,
    Done,
    Output,
    Ready,
    Refused,
    Tokens,
    VocabularyPart,
    unpack_floats,
    unpack_ids,
)
from dllm_protocol.session.client import ClientLeg
from dllm_protocol.session.transcript import held_digest
from dllm_protocol.vocabulary import Vocabulary
from light_node.channel.client import Channel

LOSSES_MAX = 3
"""A provider that loses a session's rows more often is too busy for it."""

SMALL_PARTS_AHEAD = 4
"""Parts of a few rows that are on their way at once, so that they cost no way each."""

__all__ = ["LegFailed", "OpenLeg", "RowLogits", "RowsLost", "VocabularyRefused"]


class RowsLost(LegFailed):
    """The provider no longer holds rows that it held: its cache was needed elsewhere, or its engine began anew."""

    code = "E_ROWS_LOST"


class LegSlow(LegFailed):
    """A provider that lives has become slow; the rest of the answer may be faster without it."""

    code = "E_LEG_SLOW"


class OpenLeg:
    """A leg in use. Every failure of the provider's comes out as `LegFailed`.

    Args:
        store: called whenever the ledger changed, before anything is sent on its strength.
        log: what is known of rows that the provider may still hold; None: nothing.
    """

    def __init__(
        self, channel: Channel, leg: ClientLeg, store: Callable[[], None], log: TokenLog | None = None
    ) -> None:
        self._leg = leg
        self._ready = channel.ready
        self._wire = LegWire(channel, leg, store)
        self._pace = Pace([1])
        self.may_be_slow = False
        """Whether nobody can stand in for the provider."""
        self._losses = 0
        self._passed_over: set[int] = set()
        self._cancelled: set[int] = set()
        self._refusals: dict[int, Refused] = {}
        self._answer_rows = 1
        """Rows under way that the next answer may stand behind."""
        log = log or TokenLog()
        self._together = log.together
        self.held: list[int] = self._still_held(channel.ready, log.ids)
        """Token ids whose rows the provider holds for us, as far as we know; drafted ones included."""

    @staticmethod
    def _still_held(ready: Ready, known: Sequence[int]) -> list[int]:
        """What the provider holds, if it is the beginning of what we know."""
        begin = list(known[: ready.held_rows])
        return begin if begin and held_digest(begin) == ready.held_digest else []

    @property
    def provider(self) -> bytes:
        """Provider id."""
        return self._leg.provider

    @property
    def speaker(self) -> bytes:
        """See `Decoder`."""
        return self.provider

    @property
    def alive(self) -> bool:
        """Whether the channel stands, as far as this machine knows."""
        return self._wire.is_open

    @property
    def round_trip_s(self) -> float | None:
        """See `Decoder`."""
        return self._wire.round_trip_s

    @property
    def context_rows(self) -> int:
        """Longest sequence that the provider holds for this session."""
        return self._ready.context_rows

    @property
    def top_k(self) -> int:
        """Most logits that the provider gives a row."""
        return self._ready.top_k

    async def tokenize(self, texts: Sequence[bytes]) -> list[list[int]]:
        """Token ids of texts, unchecked."""

        async def ask(batch: Sequence[bytes]) -> Tokens:
            request, frame = self._leg.tokenize(batch)
            await self._wire.send(frame)
            message = await self._answer(request, Tokens)
            if not isinstance(message, Tokens):
                raise LegFailed(f"{len(batch)} texts were to be tokenised, the answer does not fit")
            return message

        return await gather_tokens(texts, ask)

    async def vocabulary(self, expected_hash: bytes) -> Vocabulary:
        """The model's vocabulary, checked against the manifest.

        Raises:
            VocabularyRefused: another vocabulary.
        """

        async def part_from(offset: int) -> VocabularyPart:
            await self._wire.send(self._leg.get_vocabulary(offset))
            part = await self._wire.next(ANSWER_TIMEOUT_S, VocabularyPart)
            if not isinstance(part, VocabularyPart):
                raise LegFailed("the vocabulary does not come as asked")
            return part

        return await gather_vocabulary(part_from, expected_hash)

    async def decode(self, ids: Sequence[int], *, kind: int, top_k: int) -> RowLogits:
        """Bring the provider's sequence to exactly ``ids``; return the logits behind the last row.

        Rows that it holds already are kept; the rest goes in slices, so that vouchers run ahead by one slice
        at most. Rows that it held and lost are replayed, a few times at most.
        """
        while True:
            try:
                return await self._decode_rest(ids, kind, top_k)
            except RowsLost as lost:
                self._note_loss(lost)
                kind = ROW_REPLAYED

    async def decode_next(self, token: int, top_k: int, *, position: int | None = None) -> RowLogits:
        """Decode one kept token; return the logits behind it.

        Args:
            position: the token's, where rows that were drafted in vain stand behind it.

        Raises:
            LegSlow: nothing was asked for; another provider may be faster from here on.
        """
        if position is not None:
            del self.held[position:]
        self._require_pace()
        try:
            return await self._timed_row(token, top_k)
        except RowsLost as lost:
            return await self.replay(list(self.held), lost, top_k)

    async def answers(self, timeout_s: float) -> bool:
        """Whether a sign of life comes when it is asked for, while nothing else is."""
        return await self._wire.answers(timeout_s)

    async def ping(self) -> None:
        """Ask for a sign of life; when it comes, between other answers, `round_trip_s` is known."""
        await self._wire.ping()

    def _require_pace(self) -> None:
        is_due = self._pace.is_due(len(self.held)) and not self.may_be_slow
        if is_due and self._pace.slow_stages(self.round_trip_s or 0.0):
            raise LegSlow("the provider has become slow")

    async def _timed_row(self, token: int, top_k: int) -> RowLogits:
        """One row on its own; one that the provider still works on something else before says nothing of its pace."""
        began_s, is_alone = time.perf_counter(), not self.is_cancelling
        row = await self._row(await self._ask(len(self.held), [token], ROW_KEPT, top_k, OUTPUTS_LAST))
        if is_alone:
            self._pace.note(0, time.perf_counter() - began_s)
        return row

    async def send_window(self, position: int, ids: Sequence[int], top_k: int) -> int:
        """Ask for a kept row and drafted ones behind it, without waiting; returns the request's number.

        Raises:
            DepositUsedUp: nothing was asked for.
        """
        request = await self._ask(position, ids, ROW_DRAFTED, top_k, OUTPUTS_ALL)
        self._answer_rows = max(len(ids), self._answer_rows)
        return request

    async def row_of(self, request: int) -> RowLogits:
        """The logits of a window's next row. Windows are answered in the order in which they were sent."""
        message = await self._about(request)
        if not isinstance(message, Output):
            raise LegFailed("a window ended without all the logits asked for")
        return RowLogits(message.position, unpack_ids(message.ids), unpack_floats(message.logits))

    async def cancel(self, requests: Sequence[int]) -> None:
        """Stop windows that nobody wants any more; the last first, so that none begins in the place of another."""
        self._cancelled.update(requests)
        for request in sorted(requests, reverse=True):
            await self._wire.send(self._leg.cancel(request))

    def pass_over(self, requests: Iterable[int]) -> None:
        """Whatever else comes for these requests is of no interest."""
        for request in requests:
            if self._refusals.pop(request, None) is None:
                self._passed_over.add(request)
        self._wire.drop(self._is_passed_over)

    @property
    def is_cancelling(self) -> bool:
        """Whether the provider may still be at work on something that was cancelled."""
        return bool(self._cancelled)

    def _is_passed_over(self, message: Record) -> bool:
        """Whether a message is about a request given up; its last one ends the matter."""
        if not isinstance(message, Output | Done | Refused) or message.request not in self._passed_over:
            return False
        if not isinstance(message, Output):
            self._passed_over.discard(message.request)
            self._cancelled.discard(message.request)
        return True

    async def replay(self, ids: Sequence[int], lost: Exception, top_k: int) -> RowLogits:
        """Have all rows of ``ids`` decoded anew, because the provider lost some; the logits behind the last."""
        self._note_loss(lost)
        return await self.decode(ids, kind=ROW_REPLAYED, top_k=top_k)

    def _note_loss(self, lost: Exception) -> None:
        """Begin anew with a provider that lost our rows, unless it does so all the time."""
        self._losses += 1
        if self._losses > LOSSES_MAX:
            raise LegFailed(f"the provider lost its rows {self._losses} times: {lost}") from lost
        self.held.clear()

    async def _decode_rest(self, ids: Sequence[int], kind: int, top_k: int) -> RowLogits:
        first = min(common_rows(self.held, ids), len(ids) - 1)
        # A server behind a provider may see the whole prompt with its last slice only.
        self._answer_rows = len(ids) - first
        *parts, (last, end) = self._together.parts(kind, first, len(ids))
        sent: deque[int] = deque()
        was_answered = first > 0
        try:
            for begin, until in parts:
                sent.append(await self._ask(begin, ids[begin:until], kind, top_k, OUTPUTS_NONE))
                while len(sent) >= (SMALL_PARTS_AHEAD if until - begin <= FEW_ROWS else 1):
                    await self._about(sent.popleft())
                    was_answered = True
            sent.append(await self._ask(last, ids[last:end], kind, top_k, OUTPUTS_LAST))
            while len(sent) > 1:
                await self._about(sent.popleft())
                was_answered = True
            row = await self._row(sent[0])
        except RowsLost as lost:
            self.pass_over(sent)
            if was_answered:
                raise
            raise LegFailed(lost.message) from lost  # it cannot have lost what it never had
        self._answer_rows = 1
        return row

    async def seal_turn(self) -> None:
        """Have the turn's last rows acknowledged."""
        frame = self._leg.seal_turn()
        if frame is None:
            return
        await self._wire.send(frame)
        await self._acknowledged()

    async def end_session(self) -> None:
        """Have the session's final voucher acknowledged."""
        await self._wire.send(self._leg.end_session())
        await self._acknowledged()

    async def _acknowledged(self) -> None:
        """Wait for the ack of the newest voucher; those of windows that were given up may come before it."""
        while True:
            message = await self._wire.next(ANSWER_TIMEOUT_S, Acknowledge)
            if isinstance(message, Acknowledge) and message.ack.ack.n == self._leg.newest_voucher_n:
                return

    async def close(self, reason: str) -> None:
        """Say goodbye and hang up."""
        self._leg.forget_unanswered()
        await self._wire.close(reason)

    async def _ask(self, first: int, ids: Sequence[int], kind: int, top_k: int, outputs: int) -> int:
        """Ask for rows; returns the request's number.

        Raises:
            DepositUsedUp: nothing was asked for.
        """
        request, frame = self._leg.decode(first, list(ids), kind=kind, top_k=top_k, outputs=outputs)
        del self.held[first:]
        self.held += ids
        self._together.note(kind, first)
        await self._wire.send(frame)
        return request

    async def _row(self, request: int) -> RowLogits:
        """The logits of a request that asked for those of one row."""
        found: RowLogits | None = None
        while isinstance(message := await self._about(request), Output):
            found = RowLogits(message.position, unpack_ids(message.ids), unpack_floats(message.logits))
        if found is None:
            raise LegFailed("rows were decoded without the logits asked for")
        return found

    async def _about(self, request: int) -> Output | Done:
        """The next word on a request; what comes for those given up is passed over.

        Raises:
            LegFailed: it was refused, or the word is on another request.
        """
        while True:
            if request in self._refusals:
                self._refused(self._refusals.pop(request))
            message = await self._wire.next(patience_s(self._answer_rows), Output, Done, Refused)
            if self._is_passed_over(message):
                continue
            if isinstance(message, Refused):
                # One of several on their way may be refused at once, before the others are answered.
                self._refusals[message.request] = message
            elif isinstance(message, Output | Done) and message.request == request:
                return message
            else:
                raise LegFailed(f"an answer to another request than {request} came")

    async def _answer(self, request: int, kind: type[Record]) -> Record:
        message = await self._wire.next(ANSWER_TIMEOUT_S, kind, Refused)
        if isinstance(message, Refused):
            self._refused(message)
        if getattr(message, "request", request) != request:
            raise LegFailed(f"an answer to another request than {request} came")
        return message

    def _refused(self, message: Refused) -> NoReturn:
        if message.reason == REFUSED_REQUEST and self.held:
            raise RowsLost(f"the provider lost rows: {message.message}")
        busy = message.reason in (REFUSED_BUSY, REFUSED_DRAINING, REFUSED_ENGINE)
        raise LegFailed(
            f"the provider refused: {message.message or message.reason}",
            hint="it is full or stopping; another one goes on" if busy else "",
        )
