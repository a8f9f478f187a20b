"""What goes into one batch."""

from __future__ import annotations

from dataclasses import dataclass

from local_worker.engine.messages import Ids


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of one sequence; the last ``outputs`` of them want logits."""

    sequence: int
    first_position: int
    ids: Ids
    outputs: int


class BatchFailed(Exception):
    """llama.cpp refused a batch or a text; the KV of its sequences is no longer to be relied on."""
