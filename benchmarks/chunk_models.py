"""The models that benchmarks of chunks share, and where they are cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.cut_model import cut
from benchmarks.random_model import cached_random_llama, eleven_hundred_million, hundred_million


@dataclass(frozen=True)
class ChunkModel:
    """One model, in three chunks; files are made when first asked for."""

    name: str
    """What ends a result's name."""
    make: Callable[[], Path]
    bounds: tuple[int, ...]
    tokens: int
    """How many of an answer are timed."""
    rounds: int
    prefill_rounds: int

    @cached_property
    def path(self) -> Path:
        """The whole model."""
        return self.make()

    @cached_property
    def chunks(self) -> list[Path]:
        """Its three chunks, in order."""
        return cut(self.path, self.bounds)


def _small() -> Path:
    return cached_random_llama(
        layers=3,
        n_embd=512,
        n_ff=512,
        heads=8,
        kv_heads=2,
        vocab_size=21000,
        quantisation="Q8_0",
        seed=3,
    )


MODELS = (
    ChunkModel("1100M", eleven_hundred_million, (0, 8, 15, 22), tokens=16, rounds=5, prefill_rounds=1),
    ChunkModel("100M", hundred_million, (0, 4, 8, 12), tokens=40, rounds=7, prefill_rounds=3),
)
SMALL = ChunkModel("small", _small, (0, 1, 2, 3), tokens=100, rounds=5, prefill_rounds=3)
"""Hardly anything to compute: for what is not the model."""
