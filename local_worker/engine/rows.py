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


def cut(part: Rows, first: int, rows: int) -> Rows:
    """Rows [first, first + rows) of a part, with those of its outputs that fall into them."""
    behind = len(part.inputs) - first - rows
    inputs = part.inputs[first : first + rows]
    return Rows(part.sequence, part.first_position + first, inputs, min(rows, max(0, part.outputs - behind)))


class BatchFailed(Exception):
    """llama.cpp refused a batch or a text; the KV of its sequences is no longer to be relied on."""
