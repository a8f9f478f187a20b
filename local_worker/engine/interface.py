"""What a worker's service asks of an engine, wherever the rows are computed.

Two rooms answer to it: `local_worker.engine.client`, llama.cpp in a process of our own, and
`local_worker.remote_engine`, a server that somebody runs already.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence as Ordered
from typing import Literal, Protocol

from local_worker.engine.lane import Lane
from local_worker.engine.lane_frames import NO_TOKEN
from local_worker.engine.messages import (
    EngineInfo,
    EngineVocabulary,
    Hidden,
    LaneAnswer,
    RowOutput,
    Ticket,
)


class ServingSequence(Protocol):
    """One session's place in an engine: rows that it holds, one decode at a time."""

    @property
    def held_rows(self) -> int:
        """Rows that need not be sent again."""
        ...

    async def decode(
        self, first_position: int, ids: Ordered[int], *, top_k: int, outputs: Literal["none", "last", "all"]
    ) -> list[RowOutput]:
        """Cut back to ``first_position`` rows, take ``ids`` from there on, return the last or all rows' outputs.

        With ``none`` nobody will look at what comes, and the rows may be computed with the next ones.

        Raises:
            ContextFull, DecodeRefused, DecodeCancelled, EngineBusy, DecodeFailed, EngineGone
        """
        ...

    async def enter(self, first_position: int, ids: Ordered[int]) -> Hidden:
        """The same in a model's first chunk: token ids in, hidden states out.

        Raises:
            DecodeRefused: what is served is another part of a model; else as `decode`.
        """
        ...

    async def pass_on(self, first_position: int, hidden: Hidden) -> Hidden:
        """The same between the first chunk and the last: hidden states in and out.

        Raises:
            As `enter`.
        """
        ...

    async def leave(
        self, first_position: int, hidden: Hidden, *, top_k: int, outputs: Literal["none", "last", "all"]
    ) -> list[RowOutput]:
        """The same in a model's last chunk: hidden states in, logits out.

        Raises:
            As `enter`.
        """
        ...

    async def over_lanes(
        self, first_position: int, ticket: Ticket, *, token: int = NO_TOKEN, top_k: int = 1
    ) -> LaneAnswer:
        """One row whose hidden state comes over a lane (in a first chunk: of ``token``) and may go on over another.

        Raises:
            As `decode`; DecodeCancelled also where the lane ends before the row has come.
            DecodeMisled: the last stage gave out another token as the likeliest.
        """
        ...

    def cancel(self) -> None:
        """Stop a decode that is under way; it fails with `DecodeCancelled`."""
        ...

    def close(self) -> None:
        """Drop the rows and give the place back."""
        ...


class ServingEngine(Protocol):
    """A model that can be asked for rows."""

    @property
    def info(self) -> EngineInfo:
        """What is served."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it can be asked; once False, for ever."""
        ...

    @property
    def max_top_k(self) -> int:
        """Most logits of a row that it gives."""
        ...

    @property
    def waiting_calls(self) -> int:
        """Calls that were not answered yet."""
        ...

    @property
    def free_sequences(self) -> int:
        """How many more can be opened."""
        ...

    def open_sequence(self) -> ServingSequence:
        """An empty sequence.

        Raises:
            EngineFull, EngineGone
        """
        ...

    def take_lane(
        self, connection: socket.socket, state: bytes, *, form: int, is_dialler: bool
    ) -> Lane | None:
        """Go on with a lane's connection, whose handshake is over; None where that cannot be."""
        ...

    async def tokenize(self, text: str) -> list[int]:
        """Token ids of a text in which nothing is a control token; no begin token before it."""
        ...

    async def vocabulary(self) -> EngineVocabulary:
        """Every token's bytes and attributes."""
        ...

    async def close(self) -> None:
        """End it; calls that wait fail with `EngineGone`."""
        ...

    async def wait_closed(self) -> str:
        """Return when it has ended: why, in words."""
        ...
