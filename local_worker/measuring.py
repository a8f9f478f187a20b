"""What a worker says of itself for placement: how many layers of a model fit, and how fast its engine is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dllm_protocol.gguf.head import Head
from dllm_protocol.model_manifest import PIECE_BLOCK, PIECE_EMBEDDING, PIECE_OUTPUT, Manifest
from dllm_protocol.placement.holders import MAX_SPEED_LAYER_ROWS_S
from local_worker.capacity import DEVICE_RESERVE_BYTES, longest_context, needs_of, reserve_of
from local_worker.engine.interface import ServingEngine, ServingSequence
from local_worker.memory import FreeMemory

_NS: Final = 1_000_000_000
MEASURE_NS: Final = _NS // 2
"""How long speed is measured, at least one round of rows."""
MOST_SEQUENCES: Final = 4
MOST_ROUNDS: Final = 128
_USUAL_SESSIONS: Final = 2
_SMALL: Final = 0.01
"""Every number of a made-up hidden state: the time of a row does not depend on what is in it."""


@dataclass(frozen=True, slots=True)
class RoomFor:
    """What memory must hold beside each layer.

    Attributes:
        sequences: sessions whose rows stay in memory; None: two.
        context_rows: rows of each; None: as many as the model usually has.
    """

    sequences: int | None = None
    context_rows: int | None = None


def layers_that_fit(
    manifest: Manifest, header: Head, free: FreeMemory, room: RoomFor, *, card_bytes: int = 0
) -> int:
    """The most layers of a model that this machine holds, 0 to all of them.

    Counted as if the slice had both ends of the model: a provider moves.

    Args:
        header: the head of the package's header piece, which says what a row takes.
        card_bytes: free on graphics cards that may take layers.

    Raises:
        ModelFileDamaged: the header has a value of the wrong kind.
    """
    needs = needs_of(header)
    sizes = {piece.kind: 0 for piece in manifest.pieces}
    for piece in manifest.pieces:
        sizes[piece.kind] = max(sizes[piece.kind], piece.size_bytes)
    rows = (room.sequences or _USUAL_SESSIONS) * (room.context_rows or longest_context(needs))
    a_layer = sizes.get(PIECE_BLOCK, 0) + rows * needs.kv_row_bytes // max(1, needs.layers)
    reserve_bytes = reserve_of(free)
    ends_bytes = sizes.get(PIECE_EMBEDDING, 0) + sizes.get(PIECE_OUTPUT, 0)
    left_bytes = free.free_bytes - reserve_bytes - needs.batch_bytes - ends_bytes
    on_cards = max(0, card_bytes - DEVICE_RESERVE_BYTES - needs.batch_bytes) // max(1, a_layer)
    return min(manifest.layers, max(0, left_bytes) // max(1, a_layer) + on_cards)


async def measured_speed(engine: ServingEngine, clock_ns: Callable[[], int]) -> int:
    """Layer-rows a second of an engine that serves nobody yet: one row of each of some sequences at a time, as when
    it answers several sessions; at least 1.

    Args:
        clock_ns: monotonic.

    Raises:
        EngineGone, DecodeFailed: it is of no use.
    """
    count = max(1, min(MOST_SEQUENCES, engine.free_sequences))
    with contextlib.ExitStack() as stack:
        sequences = [engine.open_sequence() for _ in range(count)]
        for one in sequences:
            stack.callback(one.close)
        await _a_round(engine, sequences, 0)  # the first one pays for what is set up once
        rounds, began_ns = 0, clock_ns()
        most = min(MOST_ROUNDS, engine.info.context_rows - 1)
        while True:
            rounds += 1
            await _a_round(engine, sequences, rounds)
            taken_ns = clock_ns() - began_ns
            if taken_ns >= MEASURE_NS or rounds >= most:
                break
    layers = engine.info.end_layer - engine.info.first_layer
    speed = rounds * count * layers * _NS // max(1, taken_ns)
    return max(1, min(speed, MAX_SPEED_LAYER_ROWS_S))


async def _a_round(engine: ServingEngine, sequences: list[ServingSequence], position: int) -> None:
    await asyncio.gather(*(_a_row(engine, one, position) for one in sequences))


def _a_row(engine: ServingEngine, one: ServingSequence, position: int) -> Coroutine[Any, Any, object]:
    info = engine.info
    if not info.takes_hidden:
        return (
            one.enter(position, [0])
            if info.gives_hidden
            else one.decode(position, [0], top_k=1, outputs="last")
        )
    hidden = np.full((1, info.n_embd), _SMALL, dtype=np.float32)
    if info.gives_hidden:
        return one.pass_on(position, hidden)
    return one.leave(position, hidden, top_k=1, outputs="last")
