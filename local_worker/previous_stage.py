"""The stage before: its hidden states wait here until the request that they are for has its turn.

Requests count up, and both stages carry them out in that order. So what comes for an earlier request than the one in
turn is for one that was given up, and what comes for a later one waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import numpy as np

from dllm_protocol.errors import ChannelRefused, DllmError
from dllm_protocol.stage_link import Filled, Filler, HandedRows, StageGoodbye, StageLink
from light_node.channel.link import Link
from local_worker.engine.errors import DecodeCancelled
from local_worker.engine.messages import Hidden
from local_worker.errors import PreviousStageFailed, RowsUnusable
from local_worker.hidden_form import unpack
from local_worker.row_room import RowRoom

WAITING_BYTES = 8 << 20
"""Rows beyond this are not read from the link before some have been decoded."""
FRAME_BYTES = 512
"""What a frame takes beside its data: many that hold next to nothing fill memory as well."""
MAX_FILLERS = 16
"""A link is measured once, with two of them."""
ROWS_TIMEOUT_S = 30.0
"""Longest wait for rows of one request."""


class PreviousStage:
    """Rows that come in, from whichever provider is linked now."""

    def __init__(self, shared: RowRoom) -> None:
        """``shared``: with all sessions of the provider."""
        self._shared = shared
        self._frames: deque[HandedRows] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._wanted = 0
        self._cancelled = 0
        self._watcher: tuple[int, Callable[[], None]] | None = None
        self._link: Link | None = None
        self._failure = ""

    async def read(self, link: Link, stage: StageLink) -> None:
        """Take rows from a link until it ends.

        Raises:
            DllmError: it ended thus.
        """
        if self._link is not None:
            self._link.abort()
        self._link, self._failure = link, ""
        self._clear()
        fillers = 0
        try:
            while True:
                for message in stage.open(await link.receive()):
                    match message:
                        case HandedRows():
                            await self._put(link, message)
                        case Filler() if fillers < MAX_FILLERS:
                            fillers += 1
                            await link.send(stage.seal(Filled(message.nonce)))
                        case StageGoodbye():
                            raise ChannelRefused(f"the stage before said goodbye: {message.message}")
                        case _:
                            raise ChannelRefused(f"a stage before does not send {type(message).__name__} now")
        except DllmError as error:
            if self._link is link:
                self._failure = error.message
            raise
        finally:
            if self._link is link:
                self._link = None
                self._failure = self._failure or "its link ended"
                self._tell()

    def hang_up(self) -> None:
        """The stage before is another one from now on, or none: nothing of it counts any more."""
        if self._link is not None:
            self._link.abort()
        self._link, self._failure = None, ""
        self._clear()

    async def _put(self, link: Link, frame: HandedRows) -> None:
        while self._link is link and self._is_crowded and frame.request >= self._wanted:
            self._room.clear()
            await self._room.wait()
        if self._link is not link:
            # What waited here, or in the socket, is not the rows of whoever stands before this stage now.
            raise ChannelRefused("another link took this one's place")
        if frame.request < self._wanted:
            return
        self._frames.append(frame)
        self._count(FRAME_BYTES + len(frame.data))
        self._tell()

    @property
    def _is_crowded(self) -> bool:
        return self._bytes > WAITING_BYTES or (self._bytes > 0 and self._shared.is_scarce)

    def _count(self, size: int) -> None:
        self._bytes += size
        self._shared.waiting_bytes += size

    async def rows(self, request: int, first_position: int, count: int, width: int) -> Hidden:
        """The rows [count, width] of a request, once all are there.

        Raises:
            PreviousStageFailed: they do not come, or are not what was asked for.
            DecodeCancelled: the client gave the request up.
            EngineBusy: they come in parts, and too many of other sessions have come so far.
        """
        gathered_bytes = 0
        self._wanted = request
        parts: list[Hidden] = []
        at, end = first_position, first_position + count
        try:
            async with asyncio.timeout(ROWS_TIMEOUT_S):
                while at < end:
                    frame = await self._next(request)
                    if frame.first_position != at or at + frame.rows > end:
                        raise RowsUnusable(
                            f"rows {frame.first_position}..{frame.first_position + frame.rows - 1} came, "
                            f"of {first_position}..{end - 1} those from {at} on were awaited"
                        )
                    parts.append(unpack(frame.data, frame.rows, width, frame.form))
                    at += frame.rows
                    if at < end and not gathered_bytes:
                        gathered_bytes = self._shared.gather(parts[0].itemsize * count * width)
        except TimeoutError as error:
            raise PreviousStageFailed(
                f"the stage before gave {at - first_position} of {count} rows in {ROWS_TIMEOUT_S:g} s"
            ) from error
        except RowsUnusable as error:
            raise PreviousStageFailed(f"the stage before: {error.message}", hint=error.hint) from error
        finally:
            self._wanted = request + 1
            self._shared.gathered_bytes -= gathered_bytes
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def watch(self, request: int, changed: Callable[[], None]) -> None:
        """A request's row is awaited elsewhere: call once when something is to be said of it here after all."""
        self._wanted = request
        self._watcher = (request, changed)
        self._tell_watcher()

    def passed(self, request: int) -> None:
        """It came there."""
        self._wanted = request + 1
        self.unwatch()

    def unwatch(self) -> None:
        """Nobody awaits a row elsewhere any more."""
        self._watcher = None

    def has_news(self, request: int) -> bool:
        """Whether rows of a request have come, or will not."""
        return self._has_come(request) or bool(self._failure) or self._cancelled == request

    def _has_come(self, request: int) -> bool:
        """Whether rows of a request are here; those of earlier ones are not wanted any more."""
        while self._frames and self._frames[0].request < request:
            self._take()
        return bool(self._frames) and self._frames[0].request == request

    def _tell(self) -> None:
        """Something changed."""
        self._changed.set()
        self._tell_watcher()

    def _tell_watcher(self) -> None:
        if self._watcher is not None and self.has_news(self._watcher[0]):
            (_, changed), self._watcher = self._watcher, None
            changed()

    async def _next(self, request: int) -> HandedRows:
        while True:
            has_come = self._has_come(request)
            if self._cancelled == request:
                raise DecodeCancelled("cancelled while its rows were awaited")
            if has_come:
                return self._take()
            if self._failure:
                raise PreviousStageFailed(f"the stage before is gone: {self._failure}")
            self._changed.clear()
            await self._changed.wait()

    def cancel(self, request: int) -> None:
        """The client gave up a request that may be waiting here."""
        self._cancelled = request
        self._tell()

    def _take(self) -> HandedRows:
        frame = self._frames.popleft()
        self._count(-FRAME_BYTES - len(frame.data))
        self._room.set()
        return frame

    def _clear(self) -> None:
        self._frames.clear()
        self._count(-self._bytes)
        self._room.set()
        self._tell()
