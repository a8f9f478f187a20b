"""What goes into one batch."""

from __future__ import annotations

from dataclasses import dataclass

from local_worker.engine.messages import Hidden, Ids


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of one sequence; the last ``outputs`` of them want logits."""

    sequence: int
    first_position: int
    inputs: Ids | Hidden
    """Token ids [rows], or hidden states [rows, n_embd]."""
    outputs: int


class BatchFailed(Exception):
    """llama.cpp refused a batch or a text; the KV of its sequences is no longer to be relied on."""
