"""One client on one channel: carries out the leg's orders on the engine, bounded in everything.

The reader takes frames as they come; decodes wait in line for one task, so that a cancel or a ping is heard while
the engine works. A voucher's commit runs beside the decode that it pays for; outputs and ack wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from dllm_protocol.errors import ChannelRefused, DllmError
from dllm_protocol.messages import (
    OUTPUTS_ALL,
    OUTPUTS_LAST,
    OUTPUTS_NONE,
    REFUSED_BUSY,
    REFUSED_CANCELLED,
    REFUSED_CONTEXT,
    REFUSED_DRAINING,
    REFUSED_ENGINE,
    REFUSED_REQUEST,
    VOCABULARY_PART_BYTES,
)
from dllm_protocol.session.provider import (
    CancelRequest,
    DecodeRows,
    Farewell,
    Order,
    ProviderLeg,
    Reply,
    SendVocabulary,
    Standing,
    StoreVoucher,
    TokenizeTexts,
)
from light_node.channel.link import Link
from local_worker.allowance import Allowance
from local_worker.engine import errors
from local_worker.engine.messages import RowOutput
from local_worker.engine_host import EngineHost
from local_worker.sequences import Held, SequencePool

_log = logging.getLogger(__name__)

MAX_WAITING_DECODES = 8
MAX_WAITING_VOUCHERS = 16
LEAVE_S = 15.0
"""Longest that an ended channel takes to store what it has; a slow reader's last frame included."""
MAX_TOP_K = 128
MAX_TOKENS_BYTES = 900 * 1024
TOKENIZE_BURST_BYTES = 512 * 1024
TOKENIZE_BYTES_PER_S = 32 * 1024

_OUTPUTS: dict[int, Literal["none", "last", "all"]] = {
    OUTPUTS_NONE: "none",
    OUTPUTS_LAST: "last",
    OUTPUTS_ALL: "all",
}
_REASONS: tuple[tuple[type[DllmError], int], ...] = (
    (errors.ContextFull, REFUSED_CONTEXT),
    (errors.DecodeCancelled, REFUSED_CANCELLED),
    (errors.EngineBusy, REFUSED_BUSY),
    (errors.EngineFull, REFUSED_BUSY),
    (errors.DecodeRefused, REFUSED_REQUEST),
    (errors.DecodeFailed, REFUSED_ENGINE),
    (errors.EngineGone, REFUSED_ENGINE),
)


@dataclass(frozen=True, slots=True)
class Workbench:
    """What all sessions of a worker share."""

    engine: EngineHost
    pool: SequencePool
    vocabulary_bytes: bytes
    context_rows: int
    """Longest sequence: what the engine holds or what the model was made for, whichever is less."""
    store: Callable[[bytes, Standing], Awaitable[None]]
    """Remember a session's standing; durable on return."""
    draining: Callable[[], bool]
    count_rows: Callable[[int], None]


class SessionHost:
    """Serves one claimed channel until it ends."""

    def __init__(self, leg: ProviderLeg, link: Link, bench: Workbench) -> None:
        self.leg = leg
        self.session = leg.terms.session
        self._link = link
        self._bench = bench
        self._waiting: asyncio.Queue[DecodeRows] = asyncio.Queue(MAX_WAITING_DECODES)
        self._current: tuple[int, Held] | None = None
        self._cancelled: set[int] = set()
        self._commit: asyncio.Task[None] | None = None
        self._tokenize = Allowance(TOKENIZE_BURST_BYTES, TOKENIZE_BYTES_PER_S)
        # Twice the vocabulary for one channel: once, and once more after a lost part.
        self._vocabulary = Allowance(2 * len(bench.vocabulary_bytes) + VOCABULARY_PART_BYTES, 0)
        self._ended = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether a decode is under way or waits."""
        return self._current is not None or not self._waiting.empty()

    async def serve(self) -> None:
        """Send Ready, then carry out orders until the client leaves or breaks the protocol.

        Raises:
            ChannelRefused, MalformedBytes, ChannelLost, ChannelTimedOut
        """
        decoder: asyncio.Task[None] | None = None
        reader: asyncio.Task[None] | None = None
        try:
            await self._send_ready()
            decoder = asyncio.create_task(self._decode_in_turn())
            reader = asyncio.create_task(self._read())
            done, _ = await asyncio.wait((decoder, reader), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            running = [task for task in (decoder, reader) if task is not None]
            for task in running:
                task.cancel()
            if self._commit is not None:
                running.append(self._commit)
            await asyncio.gather(*running, return_exceptions=True)
            await self._bench.store(self.session, self.leg.standing)
            self._ended.set()

    async def leave(self, reason: str) -> None:
        """End this channel from here: say why, close, and wait until everything is stored.

        Raises:
            TimeoutError: it did not end, which is a defect of this program.
        """
        if not self._ended.is_set():
            try:
                await self._link.send(self.leg.goodbye(reason))
                await self._link.close(reason)
            except DllmError as error:
                _log.info("%s did not hear goodbye: %s", self._link.name, error.message)
            self._link.abort()
        async with asyncio.timeout(LEAVE_S):
            await self._ended.wait()

    async def _send_ready(self) -> None:
        engine = self._bench.engine.current()
        rows, digest = self._bench.pool.held(self.session)
        top_k = min(MAX_TOP_K, engine.max_top_k, engine.info.vocab_size)
        frame = self.leg.ready(
            context_rows=self._bench.context_rows, held_rows=rows, held_digest=digest, top_k=top_k
        )
        await self._link.send(frame)

    async def _read(self) -> None:
        while True:
            frame = await self._link.receive()
            for order in self.leg.receive(frame):
                if isinstance(order, Farewell):
                    return
                await self._carry_out(order)

    async def _carry_out(self, order: Order) -> None:
        match order:
            case StoreVoucher():
                if self.leg.unacknowledged > MAX_WAITING_VOUCHERS:
                    await self._committed()
                self._start_commit(order.standing)
            case DecodeRows():
                await self._take_decode(order)
            case Reply():
                await self._committed()
                await self._link.send(order.frame)
            case TokenizeTexts():
                await self._answer_tokenize(order)
            case SendVocabulary():
                await self._answer_vocabulary(order.offset)
            case CancelRequest():
                self._cancel(order.request)
            case _:
                raise ChannelRefused(f"{type(order).__name__} makes no sense on a claimed channel")

    def _start_commit(self, standing: Standing) -> None:
        before = self._commit
        self._commit = asyncio.create_task(self._store_and_acknowledge(before, standing))

    async def _store_and_acknowledge(self, before: asyncio.Task[None] | None, standing: Standing) -> None:
        if before is not None:
            await before
        await self._bench.store(self.session, standing)
        await self._link.send(self.leg.acknowledge())

    async def _committed(self) -> None:
        """Wait until every voucher that came is on disk and acknowledged."""
        commit = self._commit
        if commit is not None:
            await commit
            if self._commit is commit:
                self._commit = None

    async def _take_decode(self, order: DecodeRows) -> None:
        if self._bench.draining():
            await self._refuse(order, REFUSED_DRAINING, "this worker is about to stop", 0)
        elif self._waiting.full():
            await self._refuse(order, REFUSED_BUSY, f"{MAX_WAITING_DECODES} requests wait already", 0)
        else:
            self._waiting.put_nowait(order)

    async def _decode_in_turn(self) -> None:
        while True:
            order = await self._waiting.get()
            try:
                await self._decode(order)
            except DllmError as error:
                reason = next((code for kind, code in _REASONS if isinstance(error, kind)), None)
                if reason is None:
                    raise
                await self._committed()
                await self._refuse(order, reason, error.message, self._rows_done(order, error))
            finally:
                if self._current is not None:
                    self._bench.pool.give_back(self._current[1])
                    self._current = None

    async def _decode(self, order: DecodeRows) -> None:
        cancelled = order.request in self._cancelled
        # Requests count up: what was cancelled below this one was answered before the cancel came.
        self._cancelled = {request for request in self._cancelled if request > order.request}
        if cancelled:
            raise errors.DecodeCancelled("cancelled before it began")
        have = self._bench.pool.held_rows(self.session)
        if order.first_position > have:
            raise errors.ContextFull(f"rows from {order.first_position} on, but {have} rows are held here")
        end = order.first_position + len(order.ids)
        if end > self._bench.context_rows:
            raise errors.ContextFull(f"{end} rows, this model takes {self._bench.context_rows}")
        held = self._bench.pool.take(self.session)
        self._current = (order.request, held)
        top_k = min(order.top_k, MAX_TOP_K)
        wanted = _OUTPUTS[order.outputs]
        try:
            rows = await held.sequence.decode(order.first_position, order.ids, top_k=top_k, outputs=wanted)
        finally:
            held.note(order.first_position, order.ids)
        self._bench.count_rows(len(order.ids))
        await self._committed()
        await self._deliver(order, rows)

    async def _deliver(self, order: DecodeRows, rows: list[RowOutput]) -> None:
        if order.outputs == OUTPUTS_NONE or not rows:
            await self._link.send(self.leg.done(order.request))
            return
        final = len(rows) - 1
        for index, row in enumerate(rows):
            frame = self.leg.output(
                order.request,
                row.position,
                row.ids.tolist(),
                row.logits.tolist(),
                row.logsumexp,
                last=index == final,
            )
            await self._link.send(frame)

    def _rows_done(self, order: DecodeRows, error: DllmError) -> int:
        """Rows of a request that failed which were decoded all the same; only a cancelled one's count."""
        if not isinstance(error, errors.DecodeCancelled) or self._current is None:
            return 0
        done = self._current[1].sequence.held_rows - order.first_position
        return max(0, min(done, len(order.ids)))

    async def _refuse(self, order: DecodeRows, reason: int, text: str, decoded_rows: int) -> None:
        self.leg.take_back(order, decoded_rows)
        self._bench.count_rows(decoded_rows)
        await self._link.send(self.leg.refuse(order.request, reason, text, decoded_rows))

    def _cancel(self, request: int) -> None:
        if self._current is not None and self._current[0] == request:
            self._current[1].sequence.cancel()
        elif len(self._cancelled) < MAX_WAITING_DECODES:
            self._cancelled.add(request)

    async def _answer_tokenize(self, order: TokenizeTexts) -> None:
        size = sum(len(text.encode()) for text in order.texts)
        if not self._tokenize.take(size):
            text = f"{size} bytes to tokenise are more than is free now"
            await self._link.send(self.leg.refuse(order.request, REFUSED_BUSY, text, 0))
            return
        try:
            engine = self._bench.engine.current()
            ids = [await engine.tokenize(text) for text in order.texts]
        except DllmError as error:
            reason = next((code for kind, code in _REASONS if isinstance(error, kind)), REFUSED_ENGINE)
            await self._link.send(self.leg.refuse(order.request, reason, error.message, 0))
            return
        if 4 * sum(map(len, ids)) > MAX_TOKENS_BYTES:
            text = f"{sum(map(len, ids))} tokens do not fit into one answer"
            await self._link.send(self.leg.refuse(order.request, REFUSED_REQUEST, text, 0))
            return
        await self._link.send(self.leg.tokens(order.request, ids))

    async def _answer_vocabulary(self, offset: int) -> None:
        whole = self._bench.vocabulary_bytes
        part = whole[offset : offset + VOCABULARY_PART_BYTES]
        if not self._vocabulary.take(len(part)):
            raise ChannelRefused(
                f"the vocabulary of {len(whole)} bytes was sent twice already on this channel"
            )
        await self._link.send(self.leg.vocabulary_part(offset, len(whole), part))
