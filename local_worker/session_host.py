"""One client on one channel: carries out the leg's orders on the engine, bounded in everything.

The reader takes frames as they come; decodes wait in line for one task, so that a cancel or a ping is heard while
the engine works. A voucher's commit runs beside the decode that it pays for; outputs and ack wait for it.
"""

from __future__ import annotations

import asyncio
import logging

from dllm_protocol.errors import ChannelRefused, DllmError
from dllm_protocol.messages import (
    MAX_TOP_K,
    REFUSED_BUSY,
    REFUSED_DRAINING,
    REFUSED_ENGINE,
    REFUSED_REQUEST,
    VOCABULARY_PART_BYTES,
)
from dllm_protocol.records import MAX_STAGES
from dllm_protocol.session.provider import (
    CancelRequest,
    DecodeRows,
    Farewell,
    Order,
    ProviderLeg,
    Reply,
    ResendRows,
    SendVocabulary,
    StandBetween,
    Standing,
    StoreVoucher,
    TakeRows,
    TokenizeTexts,
)
from light_node.channel.link import Link
from local_worker.allowance import Allowance
from local_worker.engine.interface import ServingEngine
from local_worker.next_stage import NextStage
from local_worker.place_in_line import LineTools, PlaceInLine
from local_worker.row_work import MAX_WAITING_DECODES, RowRequest, RowWork, reason_of
from local_worker.workbench import Workbench

_log = logging.getLogger(__name__)

MAX_WAITING_VOUCHERS = 16
LEAVE_S = 15.0
"""Longest that an ended channel takes to store what it has; a slow reader's last frame included."""
MAX_TOKENS_BYTES = 900 * 1024
TOKENIZE_BURST_BYTES = 512 * 1024
TOKENIZE_BYTES_PER_S = 32 * 1024
LINES_BURST = 2 * MAX_STAGES + 32
"""Lines that a client may name at once: enough to ask every standby of the longest route, and for stages that fail."""
LINES_PER_S = 1.0


class SessionHost:
    """Serves one claimed channel until it ends."""

    def __init__(self, leg: ProviderLeg, link: Link, bench: Workbench, tools: LineTools) -> None:
        self.leg = leg
        self.session = leg.terms.session
        self._link = link
        self._bench = bench
        self.place = PlaceInLine(
            leg.terms, tools, self._width, self._tell_place, self._tell_lost, self._engine
        )
        """Who stands before and behind, where the route has several stages."""
        self._work = RowWork(leg, link, bench, self.place, self._committed)
        self._commit: asyncio.Task[None] | None = None
        self._tokenize = Allowance(TOKENIZE_BURST_BYTES, TOKENIZE_BYTES_PER_S)
        self._lines = Allowance(LINES_BURST, LINES_PER_S)
        # Twice the vocabulary for one channel: once, and once more after a lost part.
        self._vocabulary = Allowance(2 * len(bench.vocabulary_bytes) + VOCABULARY_PART_BYTES, 0)
        self._ended = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether rows are asked for that were not answered yet."""
        return self._work.busy

    async def serve(self) -> None:
        """Send Ready, then carry out orders until the client leaves or breaks the protocol.

        Raises:
            ChannelRefused, MalformedBytes, ChannelLost, ChannelTimedOut
        """
        decoder: asyncio.Task[None] | None = None
        reader: asyncio.Task[None] | None = None
        try:
            await self._send_ready()
            decoder = asyncio.create_task(self._work.run())
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
            try:
                await asyncio.gather(*running, return_exceptions=True)
                await self.place.close()
                await self._bench.store(self.session, self.leg.standing)
            finally:
                self._ended.set()  # whoever takes over waits for this

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
            case DecodeRows() | TakeRows() | ResendRows():
                await self._take(order)
            case StandBetween():
                if not self._lines.take(1):
                    raise ChannelRefused(
                        f"the line was changed {LINES_BURST} times at once; each makes this stage dial"
                    )
                self.place.stand(order)
            case Reply():
                await self._committed()
                await self._link.send(self.leg.reply(order))
            case TokenizeTexts():
                await self._answer_tokenize(order)
            case SendVocabulary():
                await self._answer_vocabulary(order.offset)
            case CancelRequest():
                self._work.cancel(order.request)
            case _:
                raise ChannelRefused(f"{type(order).__name__} makes no sense on a claimed channel")

    def _width(self) -> int:
        return self._bench.engine.info.n_embd

    def _engine(self) -> ServingEngine:
        return self._bench.engine.current()

    async def _tell_place(self, order: StandBetween, behind: NextStage | None) -> None:
        form, round_trip_us, bytes_per_s = (
            (behind.form, behind.round_trip_us, behind.bytes_per_s) if behind else (0, 0, 0)
        )
        await self._link.send(self.leg.linked(order.generation, form, round_trip_us, bytes_per_s))

    async def _tell_lost(self, generation: int, reason: str) -> None:
        await self._link.send(self.leg.unlinked(generation, reason))

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

    async def _take(self, order: RowRequest) -> None:
        if self._bench.draining():
            await self._work.refuse(order, REFUSED_DRAINING, "this worker is about to stop", 0)
        elif self._work.is_full:
            await self._work.refuse(order, REFUSED_BUSY, f"{MAX_WAITING_DECODES} requests wait already", 0)
        else:
            self._work.take(order)

    async def _answer_tokenize(self, order: TokenizeTexts) -> None:
        if not self._bench.vocabulary_bytes:
            text = "these layers have no vocabulary: ask the first stage"
            await self._link.send(self.leg.refuse(order.request, REFUSED_REQUEST, text, 0))
            return
        size = sum(len(text.encode()) for text in order.texts)
        if not self._tokenize.take(size):
            text = f"{size} bytes to tokenise are more than is free now"
            await self._link.send(self.leg.refuse(order.request, REFUSED_BUSY, text, 0))
            return
        try:
            engine = self._bench.engine.current()
            ids = [await engine.tokenize(text) for text in order.texts]
        except DllmError as error:
            reason = reason_of(error) or REFUSED_ENGINE
            await self._link.send(self.leg.refuse(order.request, reason, error.message, 0))
            return
        if 4 * sum(map(len, ids)) > MAX_TOKENS_BYTES:
            text = f"{sum(map(len, ids))} tokens do not fit into one answer"
            await self._link.send(self.leg.refuse(order.request, REFUSED_REQUEST, text, 0))
            return
        await self._link.send(self.leg.tokens(order.request, ids))

    async def _answer_vocabulary(self, offset: int) -> None:
        whole = self._bench.vocabulary_bytes
        if not whole:
            raise ChannelRefused("these layers have no vocabulary: ask the first stage")
        part = whole[offset : offset + VOCABULARY_PART_BYTES]
        if not self._vocabulary.take(len(part)):
            raise ChannelRefused(
                f"the vocabulary of {len(whole)} bytes was sent twice already on this channel"
            )
        await self._link.send(self.leg.vocabulary_part(offset, len(whole), part))
