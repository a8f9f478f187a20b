"""The two models that benchmarks of chunks share, and where they are cut."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.cut_model import cut
from benchmarks.random_model import eleven_hundred_million, hundred_million


@dataclass(frozen=True)
class ChunkModel:
    """One model, in three chunks; files are made when first asked for."""

    name: str
    """What ends a result's name."""
    bounds: tuple[int, ...]
    tokens: int
    """How many of an answer are timed."""
    rounds: int

    @cached_property
    def path(self) -> Path:
        """The whole model."""
        return hundred_million() if self.name == "100M" else eleven_hundred_million()

    @cached_property
    def chunks(self) -> list[Path]:
        """Its three chunks, in order."""
        return cut(self.path, self.bounds)


MODELS = (
    ChunkModel("1100M", (0, 8, 15, 22), tokens=16, rounds=5),
    ChunkModel("100M", (0, 4, 8, 12), tokens=40, rounds=7),
)
