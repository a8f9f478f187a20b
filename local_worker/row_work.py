"""Carries out a session's requests for rows, one after the other: on the engine, and on to whoever waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from dllm_protocol.errors import DllmError
from dllm_protocol.messages import (
    MAX_TOP_K,
    OUTPUTS_ALL,
    OUTPUTS_HELD,
    OUTPUTS_LAST,
    OUTPUTS_NONE,
    REFUSED_BUSY,
    REFUSED_CANCELLED,
    REFUSED_CONTEXT,
    REFUSED_ENGINE,
    REFUSED_NEXT,
    REFUSED_PREVIOUS,
    REFUSED_REQUEST,
    ROW_KEPT,
)
from dllm_protocol.session.orders import DecodeRows, ResendRows, TakeRows
from dllm_protocol.session.provider import ProviderLeg
from light_node.channel.link import Link
from local_worker.engine import errors
from local_worker.engine.messages import EngineInfo, Hidden, LaneAnswer, RowOutput, Ticket
from local_worker.errors import NextStageFailed, PreviousStageFailed
from local_worker.place_in_line import PlaceInLine
from local_worker.previous_stage import ROWS_TIMEOUT_S
from local_worker.sequences import Held
from local_worker.workbench import Workbench

MAX_WAITING_DECODES = 8
_WANTED: dict[int, Literal["none", "last", "all"]] = {OUTPUTS_NONE: "none", OUTPUTS_ALL: "all"}

_REASONS: tuple[tuple[type[DllmError], int], ...] = (
    (errors.ContextFull, REFUSED_CONTEXT),
    (errors.DecodeCancelled, REFUSED_CANCELLED),
    (errors.EngineBusy, REFUSED_BUSY),
    (errors.EngineFull, REFUSED_BUSY),
    (errors.DecodeRefused, REFUSED_REQUEST),
    (errors.DecodeMisled, REFUSED_PREVIOUS),
    (errors.DecodeFailed, REFUSED_ENGINE),
    (errors.EngineGone, REFUSED_ENGINE),
    (PreviousStageFailed, REFUSED_PREVIOUS),
    (NextStageFailed, REFUSED_NEXT),
)

RowRequest = DecodeRows | TakeRows | ResendRows


def reason_of(error: DllmError) -> int | None:
    """The REFUSED_ constant of an expected failure; None for a defect."""
    return next((code for kind, code in _REASONS if isinstance(error, kind)), None)


class RowWork:
    """The requests of one claimed channel."""

    def __init__(
        self,
        leg: ProviderLeg,
        link: Link,
        bench: Workbench,
        place: PlaceInLine,
        committed: Callable[[], Awaitable[None]],
    ) -> None:
        """``committed``: returns when every voucher that came is on disk and acknowledged."""
        self._leg = leg
        self._session = leg.terms.session
        self._link = link
        self._bench = bench
        self._place = place
        self._committed = committed
        self._waiting: asyncio.Queue[RowRequest] = asyncio.Queue(MAX_WAITING_DECODES)
        self._current: RowRequest | None = None
        self._held: Held | None = None
        self._cancelled: set[int] = set()

    @property
    def busy(self) -> bool:
        """Whether a request is under way or waits."""
        return self._current is not None or not self._waiting.empty()

    @property
    def is_full(self) -> bool:
        """Whether as many requests wait as may."""
        return self._waiting.full()

    def take(self, order: RowRequest) -> None:
        """Put a request in line; `is_full` says whether there is room."""
        self._waiting.put_nowait(order)

    def cancel(self, request: int) -> None:
        """Give a request up, under way or not."""
        if self._current is None or self._current.request != request:
            if len(self._cancelled) < MAX_WAITING_DECODES:
                self._cancelled.add(request)
        else:
            if self._held is not None:
                self._held.sequence.cancel()
            self._place.previous.cancel(request)

    async def run(self) -> None:
        """Carry requests out, for ever."""
        while True:
            order = self._current = await self._waiting.get()
            try:
                await self._carry_out(order)
            except DllmError as error:
                reason = reason_of(error)
                if reason is None:
                    raise
                await self._committed()
                await self.refuse(order, reason, error.message, self._rows_done(order, error))
            finally:
                if self._held is not None:
                    self._bench.pool.give_back(self._held)
                self._current, self._held = None, None

    async def refuse(self, order: RowRequest, reason: int, text: str, decoded_rows: int) -> None:
        """Say that a request is not carried out, or not to its end."""
        if not isinstance(order, ResendRows):
            self._leg.take_back(order, decoded_rows)
            self._bench.count_rows(decoded_rows)
        await self._link.send(self._leg.refuse(order.request, reason, text, decoded_rows))

    async def _carry_out(self, order: RowRequest) -> None:
        cancelled = order.request in self._cancelled
        # Requests count up: what was cancelled below this one was answered before the cancel came.
        self._cancelled = {request for request in self._cancelled if request > order.request}
        if cancelled:
            raise errors.DecodeCancelled("cancelled before it began")
        if isinstance(order, ResendRows):
            if not await self._place.resend(order.request, order.first_position, order.rows):
                raise errors.DecodeRefused("these rows are not kept any more")
            await self._link.send(self._leg.done(order.request))
            return
        await self._decode(order)

    async def _decode(self, order: DecodeRows | TakeRows) -> None:
        info = self._bench.engine.current().info
        count = order.rows if isinstance(order, TakeRows) else len(order.ids)
        self._require_room(order.first_position, count)
        sends = info.gives_hidden and order.outputs != OUTPUTS_HELD
        if sends:
            await self._place.wait_reached()  # nothing is computed that nobody would take
        answer = await self._single(order, info) if _is_single(order, count) else None
        if answer is None:
            outputs = await self._over_links(order, count, info)
        else:
            outputs = answer.rows if answer.hidden is None else answer.hidden
        await self._committed()
        over_lane = answer is not None and answer.sent and self._place.lanes.has_out
        if isinstance(outputs, list):
            self._bench.count_rows(count)
            await self._deliver(order, outputs)
            return
        await self._place.hand_on(
            order.request, order.first_position, outputs, sends=sends and not over_lane, over_lane=over_lane
        )
        self._bench.count_rows(count)
        if order.quiet:
            self._leg.handed_on(order.request)
        else:
            await self._link.send(self._leg.done(order.request))

    async def _over_links(
        self, order: DecodeRows | TakeRows, count: int, info: EngineInfo
    ) -> list[RowOutput] | Hidden:
        hidden: Hidden | None = None
        if isinstance(order, TakeRows):
            hidden = await self._place.previous.rows(order.request, order.first_position, count, info.n_embd)
        held = self._held = self._bench.pool.take(self._session)
        try:
            return await self._run(held, order, hidden, info)
        finally:
            self._note(held, order, count)

    @staticmethod
    def _note(held: Held, order: DecodeRows | TakeRows, count: int) -> None:
        if isinstance(order, TakeRows):
            held.note_labelled(order.first_position, count, order.label)
        else:
            held.note(order.first_position, order.ids)

    async def _single(self, order: DecodeRows | TakeRows, info: EngineInfo) -> LaneAnswer | None:
        """A single row: over lanes as soon as they stand, for the stage before may find that they do before this one.

        Returns:
            None where it has come over the link, or goes over it.
        """
        until_s = asyncio.get_running_loop().time() + ROWS_TIMEOUT_S
        answer = await self._over_lanes(order, info, until_s)
        previous = self._place.previous
        while answer is None and isinstance(order, TakeRows) and not previous.has_news(order.request):
            await self._something_comes(order, until_s)
            answer = await self._over_lanes(order, info, until_s)
        return answer

    async def _something_comes(self, order: TakeRows, until_s: float) -> None:
        """Wait for a word of the stage before, or a lane from it.

        Raises:
            PreviousStageFailed: neither came in time.
        """
        previous, lanes, event = self._place.previous, self._place.lanes, asyncio.Event()
        if lanes.ticket(order.request, is_first=False) is not None:
            return
        previous.watch(order.request, event.set)
        lanes.on_rise = event.set
        try:
            async with asyncio.timeout_at(until_s):
                await event.wait()
        except TimeoutError as error:
            raise _no_row() from error
        finally:
            previous.unwatch()

    async def _over_lanes(
        self, order: DecodeRows | TakeRows, info: EngineInfo, until_s: float
    ) -> LaneAnswer | None:
        """Have the engine take a single row from the stage before, or hand it on, by itself.

        Returns:
            None where the row goes over links.

        Raises:
            PreviousStageFailed: what came over its lane makes no sense, or nothing came.
        """
        if fault := self._place.lanes.fault:
            raise PreviousStageFailed(f"the stage before: {fault}")
        self._place.want_lane()
        if self._place.lanes.ticket(order.request, is_first=not info.takes_hidden) is None:
            return None
        await self._committed()  # what the engine hands on is delivered
        ticket = self._place.lanes.ticket(order.request, is_first=not info.takes_hidden)
        if ticket is None:
            return None
        held = self._held = self._bench.pool.take(self._session)
        if isinstance(order, DecodeRows):
            try:
                return await held.sequence.over_lanes(order.first_position, ticket, token=order.ids[0])
            finally:
                self._note(held, order, 1)
        # While it waits, it need not keep others out for longer than any session does.
        held.decoding = False
        answer: LaneAnswer | None = None
        try:
            answer = await self._from_before(order, ticket, held, until_s)
        finally:
            if answer is None:  # no row came that could count, and what is held is held as before
                self._held = None
        if answer is not None:
            self._note(held, order, 1)
        return answer

    async def _from_before(
        self, order: TakeRows, ticket: Ticket, held: Held, until_s: float
    ) -> LaneAnswer | None:
        """A row of the stage before, over its lane; None where it comes over the link after all.

        Raises:
            PreviousStageFailed: nothing came.
            DecodeCancelled: the client gave the request up.
            DecodeRefused: the session's rows had to make room while it waited.
        """
        sequence, previous = held.sequence, self._place.previous
        top_k = min(order.top_k, MAX_TOP_K)
        previous.watch(order.request, sequence.cancel)
        if previous.has_news(order.request):
            return None  # before there was anything to cancel
        loop = asyncio.get_running_loop()
        late = loop.call_at(until_s, sequence.cancel)
        try:
            answer = await sequence.over_lanes(order.first_position, ticket, top_k=top_k)
        except errors.DecodeCancelled as error:
            if previous.has_news(order.request):
                return None
            if loop.time() >= until_s:
                raise _no_row() from error
            self._require_room(order.first_position, 1)
            if not self._place.lanes.stands_in(ticket.lane_in):
                return None  # the stage before sees that, too
            raise
        finally:
            late.cancel()
            previous.unwatch()
        previous.passed(order.request)
        return answer

    def _require_room(self, first_position: int, count: int) -> None:
        have = self._bench.pool.held_rows(self._session)
        if first_position > have:
            raise errors.DecodeRefused(f"rows from {first_position} on, but {have} rows are held here")
        if first_position + count > self._bench.context_rows:
            raise errors.ContextFull(
                f"{first_position + count} rows, this model takes {self._bench.context_rows}"
            )

    async def _run(
        self, held: Held, order: DecodeRows | TakeRows, hidden: Hidden | None, info: EngineInfo
    ) -> list[RowOutput] | Hidden:
        """Logits where this is the model's end, hidden states where it is not."""
        sequence, first = held.sequence, order.first_position
        if info.gives_hidden:
            if hidden is not None:
                return await sequence.pass_on(first, hidden)
            if isinstance(order, DecodeRows):
                return await sequence.enter(first, order.ids)
        wanted = _WANTED.get(order.outputs, "last")
        top_k = min(order.top_k, MAX_TOP_K)
        if hidden is not None:
            return await sequence.leave(first, hidden, top_k=top_k, outputs=wanted)
        if isinstance(order, DecodeRows):
            return await sequence.decode(first, order.ids, top_k=top_k, outputs=wanted)
        raise errors.DecodeRefused("a request without rows")

    async def _deliver(self, order: DecodeRows | TakeRows, rows: list[RowOutput]) -> None:
        if order.outputs in (OUTPUTS_NONE, OUTPUTS_HELD) or not rows:
            await self._link.send(self._leg.done(order.request))
            return
        final = len(rows) - 1
        for index, row in enumerate(rows):
            frame = self._leg.output(
                order.request,
                row.position,
                row.ids.tolist(),
                row.logits.tolist(),
                row.logsumexp,
                last=index == final,
            )
            await self._link.send(frame)

    def _rows_done(self, order: RowRequest, error: DllmError) -> int:
        """Rows of a request that failed which were decoded all the same: of one cancelled, or that nobody took."""
        if (
            not isinstance(error, errors.DecodeCancelled | NextStageFailed)
            or self._held is None
            or isinstance(order, ResendRows)
        ):
            return 0
        count = order.rows if isinstance(order, TakeRows) else len(order.ids)
        return max(0, min(self._held.sequence.held_rows - order.first_position, count))


def _is_single(order: DecodeRows | TakeRows, count: int) -> bool:
    """Whether this is the next row of an answer, for which the client waits."""
    return count == 1 and order.kind == ROW_KEPT and order.outputs == OUTPUTS_LAST


def _no_row() -> PreviousStageFailed:
    return PreviousStageFailed(f"the stage before gave no row in {ROWS_TIMEOUT_S:g} s")
