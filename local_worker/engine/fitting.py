"""What an engine is started with: what a person named, and the rest as memory allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dllm_protocol.errors import MalformedBytes
from local_worker.capacity import (
    LEAST_CONTEXT_ROWS,
    MOST_SEQUENCES,
    Needs,
    Places,
    device_layers,
    longest_context,
    needs_of_file,
    places,
)
from local_worker.engine.devices import Device
from local_worker.memory import FreeMemory

ALL_THAT_FIT: Final = -1


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person named; None where it is to be worked out."""

    sequences: int | None = None
    context_rows: int | None = None
    gpu_layers: int = ALL_THAT_FIT
    """Layers for graphics cards; 0 leaves them alone."""
    memory_share: int = 1
    """Among how many engines that start together what is free is divided."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """What it comes to."""

    places: Places
    gpu_layers: int
    device: str
    """The graphics card that takes layers; empty where none does."""


def fit(path: Path, wish: Wish, free: FreeMemory, cards: Sequence[Device]) -> Fitting:
    """Decide for a model file.

    Args:
        free: memory of this machine.
        cards: its graphics cards.

    Raises:
        NoRoom: not even the smallest fits.
    """
    try:
        needs = needs_of_file(path)
    except (OSError, MalformedBytes):
        # No model, most likely: llama.cpp says what is wrong with it. Should it take it all the same, it gets little.
        least = Places(wish.sequences or 1, wish.context_rows or LEAST_CONTEXT_ROWS)
        on_cards = max(0, wish.gpu_layers) if cards else 0
        return Fitting(least, on_cards, _names(cards) if on_cards else "")
    gpu_layers = _gpu_layers(needs, wish, cards)
    free = FreeMemory(free.free_bytes // max(1, wish.memory_share), free.bound)
    found = places(needs.without(gpu_layers), free, sequences=wish.sequences, context_rows=wish.context_rows)
    return Fitting(found, gpu_layers, _names(cards) if gpu_layers else "")


def _gpu_layers(needs: Needs, wish: Wish, cards: Sequence[Device]) -> int:
    if not cards or wish.gpu_layers == 0:
        return 0
    if wish.gpu_layers > 0:
        return min(wish.gpu_layers, needs.layers + 1)
    rows = (wish.sequences or MOST_SEQUENCES) * (wish.context_rows or longest_context(needs))
    free_bytes = sum(card.free_bytes for card in cards) // max(1, wish.memory_share)
    return device_layers(needs, free_bytes, rows)


def _names(cards: Sequence[Device]) -> str:
    return " + ".join(card.name for card in cards)
