"""Which part of a model an engine holds, and how a batch is cut so that it is known which row comes out where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from dllm_protocol.model_package.chunk import END_KEY, FIRST_KEY, LAYERS_KEY
from local_worker.engine.errors import ModelRefused
from local_worker.engine.rows import Rows

OVERWRITTEN_ENTRIES: Final = {"gemma2": b"inp_scaled"}
"""Architectures whose graph changes hidden states that enter, and the node to put them back at: gemma2 multiplies
everything that enters by the root of its width, which dividing beforehand would not undo to the bit."""


@dataclass(frozen=True, slots=True)
class Role:
    """The blocks [first_layer, end_layer) of a model with ``layers`` blocks."""

    first_layer: int
    end_layer: int
    layers: int

    @property
    def takes_hidden(self) -> bool:
        """Whether hidden states go in, instead of token ids."""
        return self.first_layer > 0

    @property
    def gives_hidden(self) -> bool:
        """Whether hidden states come out, instead of logits."""
        return self.end_layer < self.layers

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole model."""
        return not self.takes_hidden and not self.gives_hidden

    @property
    def stages(self) -> int:
        """About how many machines a row passes, if the others have as many blocks."""
        own = self.end_layer - self.first_layer
        return (2 * self.layers + own) // (2 * own)

    @property
    def has_vocabulary(self) -> bool:
        """Whether it can tokenise: chunks between the first and the last cannot."""
        return not (self.takes_hidden and self.gives_hidden)


def role_of(name: str, layers: int, meta: Callable[[str], str]) -> Role:
    """Which layers a file has, as whoever assembled it wrote down; a file that says nothing is a whole model.

    Args:
        name: of the file.
        layers: blocks that llama.cpp found in it.
        meta: what its header says under a key; empty where it says nothing.

    Raises:
        ModelRefused: what is written down cannot be.
    """
    said = [meta(key) for key in (FIRST_KEY, END_KEY, LAYERS_KEY)]
    if not any(said):
        return Role(0, layers, layers)
    first, end, whole = (int(one) if one.isdecimal() and len(one) < 6 else -1 for one in said)
    if not 0 <= first < end <= whole or end - first != layers:
        raise ModelRefused(f"{name} has {layers} blocks and says that it is layers {said[0]}:{said[1]}")
    return Role(first, end, whole)


def even_groups(parts: Sequence[Rows]) -> Iterator[list[tuple[int, int, int]]]:
    """Cut a batch as llama.cpp itself does where each sequence has a KV stream of its own: neighbouring sequences,
    as many rows of each, in one computation; what is left of the longer ones in the next.

    Args:
        parts: at most one a sequence, in ascending order of the sequences.

    Yields:
        Computations, each as (index of the part, its first row there, rows).
    """
    done = [0] * len(parts)
    while True:
        open_parts = [index for index, part in enumerate(parts) if done[index] < len(part.inputs)]
        if not open_parts:
            return
        run = open_parts[:1]
        for index in open_parts[1:]:
            if index != run[-1] + 1 or parts[index].sequence != parts[run[-1]].sequence + 1:
                break
            run.append(index)
        rows = min(len(parts[index].inputs) - done[index] for index in run)
        yield [(index, done[index], rows) for index in run]
        for index in run:
            done[index] += rows
