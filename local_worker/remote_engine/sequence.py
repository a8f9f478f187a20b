"""One session's place in a remote engine: its token ids here, its rows at the server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence as Ordered
from typing import TYPE_CHECKING, Final, Literal

from local_worker.engine import errors
from local_worker.engine.lane_frames import NO_TOKEN
from local_worker.engine.messages import MAX_TOP_K, Hidden, LaneAnswer, RowOutput, Ticket
from local_worker.remote_engine.following import Following

if TYPE_CHECKING:
    from local_worker.remote_engine.engine import RemoteEngine

MAX_ROWS_OF_ALL: Final = 256
"""Outputs of all rows are asked for one by one."""


class RemoteSequence:
    """Rows of one session; one decode at a time."""

    def __init__(self, engine: RemoteEngine) -> None:
        self._engine = engine
        self._following = Following(engine.asker, engine.info.context_rows)
        self._ids: list[int] = []
        self._running: asyncio.Task[list[RowOutput]] | None = None
        self._open = True

    @property
    def held_rows(self) -> int:
        """Rows that need not be sent again: the ids are here, and the server has or makes their rows."""
        return len(self._ids)

    async def decode(
        self, first_position: int, ids: Ordered[int], *, top_k: int, outputs: Literal["none", "last", "all"]
    ) -> list[RowOutput]:
        """See `local_worker.engine.interface.ServingSequence.decode`.

        Raises:
            ContextFull, DecodeRefused, EngineBusy: nothing changed.
            DecodeCancelled, DecodeFailed, EngineGone: the rows before ``first_position`` are still held, and those of
                which the output was known.
        """
        self._check(first_position, ids, top_k)
        if outputs == "all" and len(ids) > MAX_ROWS_OF_ALL:
            raise errors.DecodeRefused(f"outputs of {len(ids)} rows, a server is asked for {MAX_ROWS_OF_ALL}")
        if outputs == "none":
            # The next request that wants an output has these rows in its prompt.
            self._ids[first_position:] = ids
            return []
        with self._engine.calling():
            self._running = asyncio.create_task(
                self._rows(first_position, list(ids), top_k, outputs == "all")
            )
            try:
                return await self._running
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise errors.DecodeCancelled("cancelled while the server worked") from None
            except errors.EngineGone as error:
                self._engine.note_failure(error)
                raise

    async def enter(self, first_position: int, ids: Ordered[int]) -> Hidden:
        """A server serves whole models.

        Raises:
            DecodeRefused: always.
        """
        raise _no_chunk(f"{len(ids)} rows from {first_position} on")

    async def pass_on(self, first_position: int, hidden: Hidden) -> Hidden:
        """A server serves whole models.

        Raises:
            DecodeRefused: always.
        """
        raise _no_chunk(f"{len(hidden)} rows from {first_position} on")

    async def leave(
        self, first_position: int, hidden: Hidden, *, top_k: int, outputs: Literal["none", "last", "all"]
    ) -> list[RowOutput]:
        """A server serves whole models.

        Raises:
            DecodeRefused: always.
        """
        raise _no_chunk(f"{outputs} of {len(hidden)} rows from {first_position} on, {top_k} logits each")

    async def over_lanes(
        self, first_position: int, ticket: Ticket, *, token: int = NO_TOKEN, top_k: int = 1
    ) -> LaneAnswer:
        """A server serves whole models.

        Raises:
            DecodeRefused: always.
        """
        raise _no_chunk(f"row {first_position} of request {ticket.request}")

    def cancel(self) -> None:
        """Stop a decode that is under way; it fails with `DecodeCancelled`."""
        if self._running is not None:
            self._running.cancel()

    def close(self) -> None:
        """Drop the rows and give the place back; a decode under way fails with `DecodeCancelled`."""
        if self._open:
            self._open = False
            self.cancel()
            self._following.drop()
            self._engine.give_back(self)

    def _check(self, first_position: int, ids: Ordered[int], top_k: int) -> None:
        if not self._open:
            raise errors.DecodeRefused("the sequence is closed")
        self._engine.check_alive()
        if self._running is not None and not self._running.done():
            raise errors.EngineBusy("this sequence is decoding already")
        if not 0 <= first_position <= len(self._ids):
            raise errors.DecodeRefused(
                f"rows from {first_position} on, but the sequence holds {len(self._ids)}"
            )
        if not ids or not 1 <= top_k <= MAX_TOP_K:
            raise errors.DecodeRefused(f"{len(ids)} rows with {top_k} logits each")
        info = self._engine.info
        if first_position + len(ids) > info.context_rows:
            raise errors.ContextFull(
                f"{first_position + len(ids)} rows, the context holds {info.context_rows}"
            )
        outside = next((token for token in ids if not 0 <= token < info.vocab_size), None)
        if outside is not None:
            raise errors.DecodeRefused(f"token {outside} is outside 0..{info.vocab_size - 1}")

    async def _rows(
        self, first_position: int, ids: list[int], top_k: int, wants_all: bool
    ) -> list[RowOutput]:
        del self._ids[first_position:]
        top_k = min(top_k, self._engine.max_top_k)
        found = []
        for step in [[token] for token in ids] if wants_all else [ids]:
            after = [*self._ids, *step]
            row = await self._following.row_after(after, top_k)
            found.append(self._engine.asker.words.output(row, len(after) - 1, top_k))
            self._ids = after
        return found


def _no_chunk(what: str) -> errors.DecodeRefused:
    return errors.DecodeRefused(
        f"{what}: a server holds a whole model, which takes no hidden states and gives none"
    )
