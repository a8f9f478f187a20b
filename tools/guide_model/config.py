"""Every number that decides what the guide model becomes, in one place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

ROOM = Path(__file__).resolve().parent
CORPUS_DIR = ROOM / "corpus"
HELDOUT_DIR = ROOM / "heldout"
REPO = ROOM.parent.parent
MODEL_FILE = REPO / "local_worker" / "models" / "guide.gguf"
BUILD_DIR = REPO / "build" / "guide_model"

SEED = 20261121
MAX_FILE_BYTES = 6_000_000


@dataclass(frozen=True)
class Shape:
    """The network's shape. Widths are multiples of 32, the block size of Q8_0."""

    vocab: int = 2048
    width: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 3
    hidden: int = 576
    context: int = 384
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn. Steps end it, not the clock, so that a slow machine makes the same model.

    Rates rise over ``warmup`` steps, stay until ``decay_from``, halve every ``half_life_steps`` down to ``floor`` and
    fall to nothing over the ``cooldown_steps`` before the last two phases, which begin at ``second_rise`` and fall to
    nothing again. ``phases`` are the first steps of what rows.py calls LANGUAGE, CHOICE, BREADTH, BALANCE,
    CAUTION and CHAT.
    """

    steps: int = 4850
    warmup: int = 60
    phases: tuple[int, ...] = (0, 650, 1550, 2650, 3800, 4450)
    decay_from: int = 850
    half_life_steps: float = 274.635
    floor: float = 0.25
    cooldown_steps: int = 750
    second_rise: float = 0.12
    batch_tokens: int = 3072
    matrix_rate: float = 0.02
    other_rate: float = 4e-3
    weight_decay: float = 0.02
    momentum: float = 0.95
    beta1: float = 0.9
    beta2: float = 0.98
    average_decay: float = 0.99

    def scaled(self, steps: int) -> Schedule:
        """The same course in fewer steps, for a try: every phase gets its share."""
        share = steps / self.steps
        return replace(
            self,
            steps=steps,
            warmup=max(1, int(self.warmup * share)),
            phases=tuple(int(first * share) for first in self.phases),
            decay_from=int(self.decay_from * share),
            half_life_steps=max(1.0, self.half_life_steps * share),
            cooldown_steps=max(1, int(self.cooldown_steps * share)),
        )


SHAPE = Shape()
SCHEDULE = Schedule()
