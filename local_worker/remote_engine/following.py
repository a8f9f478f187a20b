"""Rows of one sequence, out of a stream that runs ahead.

A request for every token would cost a round trip each. So a stream is left open, in which the server goes on by
itself for a bounded window: as long as the client's next token is the one that the server chose, the next row is
there already. Where it is another, the stream is dropped, and a new one begins from the client's own tokens; the
server still has their rows in its cache. A window that was read to its end doubles the next one, a dropped one halves
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from local_worker.remote_engine.answers import RemoteRow, read_completion
from local_worker.remote_engine.asking import Asker
from local_worker.remote_engine.errors import RemoteCutOff, RemoteMalformed
from local_worker.remote_engine.http import RemoteStream

_MAX_EMPTY_EVENTS = 64
"""Events without a row between two rows: the last words, usage, texts held back."""


class Following:
    """The stream of one sequence, if one is open."""

    def __init__(self, asker: Asker, context_rows: int) -> None:
        self._asker = asker
        self._context_rows = context_rows
        self._stream: RemoteStream | None = None
        self._tokens: list[int] = []
        """What the stream's next row stands behind, its own choice last; none before its first row."""
        self._ready: list[RemoteRow] = []
        self._finish = ""
        self._top_k = 0
        self._window = asker.limits.first_window
        self._idle: asyncio.TimerHandle | None = None

    async def row_after(self, ids: Sequence[int], top_k: int) -> RemoteRow:
        """What comes after these tokens.

        Raises:
            A leaf of `remote_engine.errors`.
        """
        if self._idle is not None:
            self._idle.cancel()
        try:
            return await self._row_after(list(ids), top_k)
        except BaseException:
            self.drop()
            raise
        finally:
            if self._stream is not None:
                self._idle = asyncio.get_running_loop().call_later(self._asker.limits.idle_s, self.drop)

    def drop(self) -> None:
        """Close the stream."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._ready.clear()

    async def _row_after(self, ids: list[int], top_k: int) -> RemoteRow:
        limits = self._asker.limits
        if self._stream is not None and (self._tokens != ids or self._top_k < top_k):
            self._window = max(limits.first_window, self._window // 2)
            self.drop()
        if self._stream is not None:
            row = await self._next_or_none()
            if row is not None:
                return self._took(row, ids)
            if self._finish == "stop" and ids[-1] not in self._asker.words.end_ids:
                self.drop()
                return await self._asker.end_row(ids, top_k)
            self._window = min(2 * self._window, limits.longest_window)
        for left in reversed(range(limits.tries)):
            self.drop()
            await self._begin(ids, top_k)
            try:
                row = await self._next()
            except RemoteCutOff:
                if not left:
                    raise
                await asyncio.sleep(limits.pause_s)
                continue
            if row is not None:
                return self._took(row, ids)
            if self._finish == "stop":
                self.drop()
                return await self._asker.end_row(ids, top_k)
            # Ended before its first row, without a reason: the server had to make room for somebody.
            await asyncio.sleep(limits.pause_s)
        raise RemoteCutOff(f"the server ended its answer {limits.tries} times before the first row")

    async def _next_or_none(self) -> RemoteRow | None:
        """The next row of a stream that gave some; None where it is over, however it ended: a new one will say why."""
        try:
            return await self._next()
        except RemoteCutOff:
            return None

    async def _begin(self, ids: list[int], top_k: int) -> None:
        prompt = await self._asker.prompt(ids)
        window = max(1, min(self._window, self._context_rows - len(ids)))
        self._finish = ""
        self._tokens = []
        self._top_k = top_k
        self._stream = await self._asker.open(prompt, max_tokens=window, top_k=top_k)

    async def _next(self) -> RemoteRow | None:
        """The stream's next row; None where it is over."""
        patience_s = self._asker.limits.row_s if self._tokens else self._asker.limits.first_row_s
        for _ in range(_MAX_EMPTY_EVENTS):
            if self._ready:
                return self._ready.pop(0)
            if self._stream is None or self._finish:
                return None
            event = await self._stream.next_event(patience_s)
            if event is None:
                return None
            self._take(event)
        raise RemoteMalformed(f"{_MAX_EMPTY_EVENTS} events of the server's stream had no row")

    def _take(self, event: bytes) -> None:
        found = read_completion(event)
        self._asker.check_model(found)
        rows = [row for row in found.rows if row is not None]
        if len(rows) != len(found.rows):
            raise RemoteMalformed("the server says nothing of a token that it made")
        if found.text and not rows:
            raise RemoteMalformed("the server sends text without the log-probabilities that were asked for")
        self._ready += rows
        self._finish = found.finish

    def _took(self, row: RemoteRow, ids: list[int]) -> RemoteRow:
        chosen = self._asker.words.id_of(row.chosen)
        if chosen is None:
            # Nobody can say which token the next row would stand behind.
            self.drop()
        else:
            self._tokens = [*ids, chosen]
        return row
