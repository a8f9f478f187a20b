"""Packages with probes, each made once, and their chunks run in this process as an engine would run them."""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dllm_protocol.model_manifest import Manifest
from local_worker.engine.llama import LlamaModel
from local_worker.engine.messages import EngineInfo, Hidden, RowOutput
from local_worker.engine.rows import Rows
from local_worker.engine.top_k import TopK
from local_worker.packages.assembling import assemble
from local_worker.packages.probe_piece import Probe, read_probe
from tests.local_worker.packages.chains import load, packed
from tests.local_worker.packages.tiny_models import SHAPES, Shape, write_model


@dataclass(frozen=True)
class Probed:
    """A model's file, its package with a probe, and the manifest."""

    model: Path
    package: Path
    manifest: Manifest

    def probe(self, first: int, end: int) -> Probe:
        """The package's probe for a chunk."""
        probe = read_probe(self.package, self.manifest, first, end, context_rows=256)
        assert probe is not None
        return probe

    def chunk(self, first: int, end: int, out: Path) -> Path:
        """The file of a chunk."""
        assemble(self.package, self.manifest, first, end, out)
        return out


class ProbedModels:
    """Tiny models by name, each packed with its probe when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Probed] = {}

    def __call__(self, name: str) -> Probed:
        if name not in self._made:
            self._made[name] = make_probed(self._folder / str(len(self._made)), SHAPES[name])
        return self._made[name]


def make_probed(folder: Path, shape: Shape) -> Probed:
    """A package with a probe in a folder of its own."""
    folder.mkdir()
    model = write_model(folder / "model.gguf", shape)
    # Packing has an event loop of its own, and whoever asks may be in one.
    with ThreadPoolExecutor(1) as aside:
        manifest = aside.submit(packed, model, folder / "package", with_probe=True).result()
    return Probed(model, folder / "package", manifest)


class NearEngine:
    """As much of an engine as a self-test needs, with llama.cpp in this process."""

    def __init__(self, path: Path) -> None:
        self._model: LlamaModel = load(path)
        self.info: EngineInfo = self._model.info()
        self._top_k = TopK(self._model.vocab_size)
        self.open = 0

    def open_sequence(self) -> NearEngine:
        self.open += 1
        self._model.truncate(0, 0)
        return self

    def close(self) -> None:
        self.open -= 1

    def end(self) -> None:
        """Give the memory back."""
        self._model.close()

    async def enter(self, first_position: int, ids: Ordered[int]) -> Hidden:
        return self._run(np.array(ids, np.int32))

    async def pass_on(self, first_position: int, hidden: Hidden) -> Hidden:
        return self._run(hidden)

    async def decode(
        self, first_position: int, ids: Ordered[int], *, top_k: int, outputs: Literal["last", "all"]
    ) -> list[RowOutput]:
        return self._read(self._run(np.array(ids, np.int32)), top_k)

    async def leave(
        self, first_position: int, hidden: Hidden, *, top_k: int, outputs: Literal["last", "all"]
    ) -> list[RowOutput]:
        return self._read(self._run(hidden), top_k)

    def _run(self, inputs: Hidden | np.ndarray) -> Hidden:
        return np.array(self._model.decode([Rows(0, 0, inputs, len(inputs))])[0])

    def _read(self, rows: Hidden, top_k: int) -> list[RowOutput]:
        return [self._top_k.read(row, position, top_k) for position, row in enumerate(rows)]
