"""One session's place in an engine, and the calls that it makes there."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from typing import TYPE_CHECKING, Literal

import numpy as np

from local_worker.engine import errors
from local_worker.engine.frames import FrameRefused, Kind, frame
from local_worker.engine.hidden import HiddenAnswer, forward_frame
from local_worker.engine.lane_frames import NO_TOKEN, LaneOrder, order_frame
from local_worker.engine.messages import (
    MAX_TOP_K,
    DecodeRequest,
    Hidden,
    Ids,
    LaneAnswer,
    RowOutput,
    Ticket,
    decode_frame,
)

if TYPE_CHECKING:
    from local_worker.engine.client import Engine


class Call:
    """One call that waits for its answer; ``rows`` and ``hidden`` gather its slices."""

    __slots__ = ("answer", "hidden", "rows", "sent", "sequence")

    def __init__(self, sequence: Sequence | None) -> None:
        self.answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.sequence = sequence
        self.rows: list[RowOutput] = []
        self.hidden: list[Hidden] = []
        self.sent = False
        """Whether the engine itself sent the hidden state on."""

    def succeed(self, value: object) -> None:
        if not self.answer.done():
            self.answer.set_result(value)

    def take(self, answer: HiddenAnswer) -> bool:
        """One slice of hidden states; returns whether it was the last."""
        self.hidden.append(answer.rows)
        self.sent = answer.sent
        if self.sequence is not None:
            self.sequence.held_rows = answer.held_rows
        if answer.last:
            self.succeed(self.hidden)
        return answer.last

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # whoever gave up waiting has heard enough


class Sequence:
    """One session's place in the engine: rows in the KV cache, one decode at a time.

    Attributes:
        held_rows: rows that stand in the KV cache, as the engine last said.
    """

    def __init__(self, engine: Engine, slot: int) -> None:
        self._engine = engine
        self._slot = slot
        self._call = 0
        self._waiting: Call | None = None
        self._open = True
        self.held_rows = 0

    async def decode(
        self, first_position: int, ids: Ordered[int], *, top_k: int, outputs: Literal["none", "last", "all"]
    ) -> list[RowOutput]:
        """Cut the sequence back to ``first_position`` rows, decode ``ids`` from there on, return the outputs.

        Args:
            first_position: at most ``held_rows``; what the cache holds before it is reused.
            top_k: logits of each row, 1 to 1024 (fewer where the vocabulary is smaller).
            outputs: of the last row, or of all rows in order; with ``none`` nobody will look at what comes.

        Raises:
            ContextFull: more rows than the context holds; nothing changed.
            DecodeRefused: a gap, an unknown id, no rows, a chunk that gives no logits; nothing changed.
            DecodeCancelled: `cancel` came first; ``held_rows`` says how far it got.
            EngineBusy: this sequence is decoding already.
            DecodeFailed, EngineGone: start again on another sequence or engine.
        """
        self._check_direction(takes_hidden=False, gives_hidden=False)
        return (await self._run(first_position, _token_ids(ids), top_k, outputs == "all")).rows

    async def enter(self, first_position: int, ids: Ordered[int]) -> Hidden:
        """The same in a model's first chunk: token ids in, hidden states of all rows out [rows, n_embd].

        Raises:
            As `decode`.
        """
        self._check_direction(takes_hidden=False, gives_hidden=True)
        return _together((await self._run(first_position, _token_ids(ids), 1, False)).hidden)

    async def pass_on(self, first_position: int, hidden: Hidden) -> Hidden:
        """The same in a chunk between the first and the last: hidden states in and out [rows, n_embd].

        Raises:
            As `decode`.
        """
        self._check_direction(takes_hidden=True, gives_hidden=True)
        return _together((await self._run(first_position, hidden, 1, False)).hidden)

    async def leave(
        self, first_position: int, hidden: Hidden, *, top_k: int, outputs: Literal["none", "last", "all"]
    ) -> list[RowOutput]:
        """The same in a model's last chunk: hidden states in [rows, n_embd], logits out.

        Raises:
            As `decode`.
        """
        self._check_direction(takes_hidden=True, gives_hidden=False)
        return (await self._run(first_position, hidden, top_k, outputs == "all")).rows

    async def over_lanes(
        self, first_position: int, ticket: Ticket, *, token: int = NO_TOKEN, top_k: int = 1
    ) -> LaneAnswer:
        """One row whose hidden state comes over a lane (in a first chunk: of ``token``) and may go on over another.

        Raises:
            As `decode`; DecodeCancelled also where the lane ends before the row has come.
            DecodeMisled: the last stage gave out another token as the likeliest.
        """
        self._require_free()
        if first_position < 0 or not 1 <= top_k <= MAX_TOP_K:
            raise errors.DecodeRefused(f"row {first_position} with {top_k} logits")
        order = LaneOrder(0, self._slot, first_position, top_k, ticket, token)
        call = await self._asked(lambda number: order_frame(order, number))
        return LaneAnswer(call.hidden[0] if call.hidden else None, call.rows, call.sent)

    def _check_direction(self, *, takes_hidden: bool, gives_hidden: bool) -> None:
        info = self._engine.info
        if (info.takes_hidden, info.gives_hidden) != (takes_hidden, gives_hidden):
            raise errors.DecodeRefused(
                f"the engine holds layers {info.first_layer}:{info.end_layer} of {info.model_layers}, which "
                f"{'take hidden states' if info.takes_hidden else 'take token ids'} and "
                f"{'give hidden states' if info.gives_hidden else 'give logits'}"
            )

    async def _run(self, first_position: int, inputs: Ids | Hidden, top_k: int, all_outputs: bool) -> Call:
        self._require_free()
        if first_position < 0 or not 1 <= top_k <= MAX_TOP_K:
            raise errors.DecodeRefused(f"rows from {first_position} on with {top_k} logits each")
        if len(inputs) > self._engine.info.context_rows:
            raise errors.ContextFull(
                f"{len(inputs)} rows, the context holds {self._engine.info.context_rows}"
            )
        request = DecodeRequest(0, self._slot, first_position, top_k, all_outputs, inputs)
        write = forward_frame if inputs.ndim == 2 else decode_frame
        return await self._asked(lambda call: write(request, call))

    def _require_free(self) -> None:
        if not self._open:
            raise errors.DecodeRefused("the sequence is closed")
        if self._waiting is not None and not self._waiting.answer.done():
            raise errors.EngineBusy(f"sequence {self._slot} is decoding already")

    async def _asked(self, frame_of: Callable[[int], bytes]) -> Call:
        self._call, call = self._engine._register(self)
        try:
            self._engine._send(frame_of(self._call))
        except (OverflowError, struct.error, FrameRefused) as error:
            del self._engine._calls[self._call]
            raise errors.DecodeRefused(
                "a position out of range, or more rows than go into one request"
            ) from error
        self._waiting = call
        try:
            await call.answer
        except asyncio.CancelledError:
            self._engine._send(frame(Kind.CANCEL, self._call))
            raise
        return call

    def cancel(self) -> None:
        """Stop a decode that is under way before its next batch; it fails with `DecodeCancelled`."""
        if self._waiting is not None and not self._waiting.answer.done():
            self._engine._send(frame(Kind.CANCEL, self._call))

    def close(self) -> None:
        """Drop the rows and give the place back; a decode under way fails with `DecodeCancelled`."""
        if self._open:
            self._open = False
            self._engine._send(frame(Kind.CLEAR, 0, struct.pack("<I", self._slot)))
            self._engine._free.append(self._slot)


def _together(slices: list[Hidden]) -> Hidden:
    return slices[0] if len(slices) == 1 else np.concatenate(slices)


def _token_ids(ids: Ordered[int]) -> Ids:
    try:
        return np.asarray(ids, dtype=np.int32)
    except OverflowError as error:
        raise errors.DecodeRefused("a token id out of range") from error
