"""What all sessions of a worker's engine share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dllm_protocol.session.provider import Standing
from local_worker.engine_host import EngineHost
from local_worker.sequences import SequencePool


@dataclass(frozen=True, slots=True)
class Workbench:
    """Engine, places in it, and whom to tell."""

    engine: EngineHost
    pool: SequencePool
    vocabulary_bytes: bytes
    """Empty at a chunk between the first and the last, which has none."""
    context_rows: int
    """Longest sequence: what the engine holds or what the model was made for, whichever is less."""
    store: Callable[[bytes, Standing], Awaitable[None]]
    """Remember a session's standing; durable on return."""
    draining: Callable[[], bool]
    count_rows: Callable[[int], None]
