"""A model in chunks beside the whole: the same batches through both, in this process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dllm_protocol.model_manifest import Manifest
from local_worker.engine.llama import LlamaModel
from local_worker.engine.messages import Logits
from local_worker.engine.rows import Rows
from local_worker.model_files import DEFAULT_RESERVE
from local_worker.packages.assembling import assemble
from local_worker.packages.packing import ManifestTerms, pack

CONTEXT_ROWS, SEQUENCES = 256, 3
ROOMY_ROWS = 512
"""A context that holds all steps. llama.cpp takes held rows in by the 256; a shorter one never needs more of them."""
TERMS = ManifestTerms("tiny", DEFAULT_RESERVE)
Step = tuple[tuple[int, int, int], ...]
"""One batch: for each sequence its number, its first position, how many rows."""
STEPS: tuple[Step, ...] = (
    ((0, 0, 20),),  # a prompt
    ((0, 20, 1),),  # one token
    ((1, 0, 5), (2, 0, 3)),  # two prompts of unequal length
    ((0, 21, 1), (1, 5, 1), (2, 3, 1)),  # three sequences in one decode
    ((0, 22, 40), (2, 4, 1)),  # a prompt beside a token, and a gap between the sequences
    ((0, 10, 5),),  # cut back, and another text from there on
    ((0, 15, 150),),  # a long one, over many windows
    ((0, 165, 1), (1, 6, 2), (2, 5, 2)),  # a token, and two windows of drafted ones
    ((0, 166, 200),),  # beyond row 256, over many windows
    ((0, 366, 1), (1, 8, 2), (2, 7, 1)),  # far behind it, beside sequences before it
    ((0, 250, 12), (1, 10, 1)),  # cut back before it, and over it again
)


def quiet(_name: str, _number: int, _count: int) -> None:
    """Progress that nobody watches."""


def load(path: Path, context_rows: int = CONTEXT_ROWS) -> LlamaModel:
    """A model or a chunk, on one thread."""
    return LlamaModel(path, context_rows=context_rows, sequences=SEQUENCES, threads=1, batch_rows=256)


def packed(model: Path, package: Path, *, with_probe: bool = False) -> Manifest:
    """A package of a model; recording its probe takes a moment a block, so only who asks for one gets it."""
    return pack(model, package, TERMS, quiet, with_probe=with_probe)


def cuts_of(layers: int, most: int) -> list[tuple[int, ...]]:
    """Every way to cut a model into at most ``most`` chunks."""
    found = []
    for count in range(most):
        found += [(0, *inner, layers) for inner in itertools.combinations(range(1, layers), count)]
    return found


class Workshop:
    """A whole model, its package, and its chunks, each built and loaded once."""

    def __init__(self, model: Path, folder: Path, context_rows: int) -> None:
        self.package = folder / "package"
        self.manifest = packed(model, self.package)
        self.whole = load(model, context_rows)
        self._folder = folder
        self._context_rows = context_rows
        self._chunks: dict[tuple[int, int], LlamaModel] = {}

    def chain(self, cut: Sequence[int]) -> list[LlamaModel]:
        """The chunks between the places of a cut."""
        return [self._chunk(first, end) for first, end in itertools.pairwise(cut)]

    def _chunk(self, first: int, end: int) -> LlamaModel:
        if (first, end) not in self._chunks:
            path = self._folder / f"{first}-{end}.gguf"
            assemble(self.package, self.manifest, first, end, path)
            self._chunks[first, end] = load(path, self._context_rows)
        return self._chunks[first, end]

    def close(self) -> None:
        """Give all memory back."""
        for model in (self.whole, *self._chunks.values()):
            model.close()


@contextmanager
def workshop(model: Path, folder: Path, context_rows: int = CONTEXT_ROWS) -> Iterator[Workshop]:
    """A workshop for as long as it is needed; what is to be `spoken` takes `ROOMY_ROWS`."""
    made = Workshop(model, folder, context_rows)
    try:
        yield made
    finally:
        made.close()


def spoken(chain: Sequence[LlamaModel], seed: int = 1, *, only_last: bool = False) -> list[list[Logits]]:
    """The logits of all rows of all steps, or of each part's last; hidden states go from chunk to chunk."""
    chance = np.random.default_rng(seed)
    for model in chain:
        for sequence in range(SEQUENCES):
            model.truncate(sequence, 0)
    said = []
    for step in STEPS:
        parts = [
            Rows(sequence, first, chance.integers(5, 500, count).astype(np.int32), 1 if only_last else count)
            for sequence, first, count in step
        ]
        for model in chain:
            for sequence, first, _ in step:
                assert model.truncate(sequence, first)
            leaving = model.decode(parts)
            parts = [
                Rows(part.sequence, part.first_position, rows, part.outputs)
                for part, rows in zip(parts, leaving, strict=True)
            ]
        said.append([np.array(part.inputs, dtype=np.float32) for part in parts])
    return said


def differences(wanted: list[list[Logits]], got: list[list[Logits]]) -> list[int]:
    """The steps in which a bit differs."""
    return [
        number
        for number, (one, other) in enumerate(zip(wanted, got, strict=True))
        if any(a.tobytes() != b.tobytes() for a, b in zip(one, other, strict=True))
    ]
