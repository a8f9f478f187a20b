"""What it costs to cut a model: three chunks in one process against the whole, and a pack against its hashes alone."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.random_model import hundred_million
from benchmarks.runner import Result, interleaved_medians
from local_worker.engine.llama import LlamaModel
from local_worker.engine.process import default_threads
from local_worker.engine.rows import Rows
from local_worker.model_files import DEFAULT_RESERVE
from local_worker.packages.assembling import assemble
from local_worker.packages.packing import ManifestTerms, pack

NAME = "chunks"
_CUT = (0, 4, 8, 12)
_PROMPT = np.arange(300, 428, dtype=np.int32)
_TOKENS = 40
_BLOCK_BYTES = 16384


def run() -> Iterator[Result]:
    """Decoding and prefill through three chunks; packing."""
    model = hundred_million()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packed_s, hashed_s = interleaved_medians(lambda: _pack(model, folder), lambda: _hash(model), rounds=3)
        megabytes = model.stat().st_size / 1e6
        yield Result.of(
            f"{NAME}/pack", megabytes / packed_s, "MB/s", "SHA-256 of its blocks alone", megabytes / hashed_s
        )
        whole = [_load(model)]
        chain = [_load(path) for path in _assembled(model, folder)]
        prompts: dict[str, list[float]] = {"chunks": [], "whole": []}
        ours_s, whole_s = interleaved_medians(
            lambda: _decode(chain, prompts["chunks"]), lambda: _decode(whole, prompts["whole"]), rounds=7
        )
        yield Result.of(f"{NAME}/decode", 1 / ours_s, "tokens/s", "the whole model", 1 / whole_s)
        ours_s, whole_s = (float(np.median(prompts[one][1:])) for one in ("chunks", "whole"))
        rows = len(_PROMPT)
        yield Result.of(f"{NAME}/prefill", rows / ours_s, "rows/s", "the whole model", rows / whole_s)


def _pack(model: Path, folder: Path) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        started = time.perf_counter()
        terms = ManifestTerms("bench", DEFAULT_RESERVE)
        pack(model, Path(name) / "package", terms, lambda *_: None, with_probe=False)
        return time.perf_counter() - started


def _hash(model: Path) -> float:
    started = time.perf_counter()
    with model.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hashlib.sha256(block).digest()
    return time.perf_counter() - started


def _assembled(model: Path, folder: Path) -> list[Path]:
    package = folder / "package"
    manifest = pack(model, package, ManifestTerms("bench", DEFAULT_RESERVE), lambda *_: None)
    paths = []
    for first, end in itertools.pairwise(_CUT):
        paths.append(folder / f"{first}-{end}.gguf")
        assemble(package, manifest, first, end, paths[-1])
    return paths


def _load(path: Path) -> LlamaModel:
    return LlamaModel(path, context_rows=1024, sequences=1, threads=default_threads(), batch_rows=256)


def _decode(chain: Sequence[LlamaModel], prompts: list[float]) -> float:
    """Seconds a token of a greedy answer; the prompt's time goes into ``prompts``."""
    for model in chain:
        model.truncate(0, 0)
    started = time.perf_counter()
    token = _through(chain, Rows(0, 0, _PROMPT, 1))
    prompts.append(time.perf_counter() - started)
    started = time.perf_counter()
    for position in range(len(_PROMPT), len(_PROMPT) + _TOKENS):
        token = _through(chain, Rows(0, position, np.array([token], np.int32), 1))
    return (time.perf_counter() - started) / _TOKENS


def _through(chain: Sequence[LlamaModel], part: Rows) -> int:
    for model in chain:
        (leaving,) = model.decode([part])
        part = Rows(part.sequence, part.first_position, leaving, part.outputs)
    return int(np.argmax(part.inputs[-1]))
