"""Which worker of a devnet serves which slices of its model, and what it asks for them.

Every slice has two holders where there are two workers or more: the first ones are a little cheaper, so that they are
the stages of every route, and the second ones the standbys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllm_protocol.model_manifest import Manifest
from dllm_protocol.pricing import RowPrices, part_of


@dataclass(frozen=True, slots=True)
class Slot:
    """One slice at one worker."""

    worker: str
    slice_: int
    """Which slice of the model, counted from 0."""
    copy: int
    """0 for its first holder, 1 for its second."""


def deal(split: int, workers: Sequence[str]) -> tuple[Slot, ...]:
    """Slices to workers: no worker has the same twice, and none has two more than another.

    Slot n goes to worker n mod workers, first holders before second ones; where that would give a worker the same
    slice again, second holders are one worker further on.
    """
    count = len(workers)
    slots = [Slot(workers[number % count], number, 0) for number in range(split)] if count else []
    if count > 1:
        shift = split + (split % count == 0)
        slots += [Slot(workers[(number + shift) % count], number, 1) for number in range(split)]
    return tuple(slots)


def slots_of(slots: Sequence[Slot], worker: str) -> list[Slot]:
    """A worker's, in the order in which it numbers its slices."""
    return [slot for slot in slots if slot.worker == worker]


def ask_of(manifest: Manifest, layers: int, copy: int) -> RowPrices:
    """Half of what so many layers may ask; second holders ask one more. Never above what they may."""
    limit = part_of(manifest.reserve_prices, layers, manifest.layers)

    def ask(price_udllm: int) -> int:
        return min(max(1, price_udllm // 2) + copy, price_udllm)

    return RowPrices(
        ask(limit.prompt_udllm), ask(limit.kept_udllm), ask(limit.drafted_udllm), ask(limit.replayed_udllm)
    )
