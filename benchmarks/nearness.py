"""How far honest arithmetic is from the packer's, against what a self-test and a question to a standby allow.

The trained model that ships, in chunks: under attention without the fused kernel, with weights as f32 (so that
activations are not quantised), and row by row. To be run on each backend: what `dllm_protocol.probing` allows is to be
several times what comes out here.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

from benchmarks.runner import Result
from dllm_protocol.model_manifest import Manifest
from dllm_protocol.model_package.probe import probe_tokens
from dllm_protocol.probing.closeness import DENSE, DENSE_LOGITS, compare_hidden, compare_logits
from dllm_protocol.probing.questions import QUESTION_LOGITS, Answer, judge, question
from local_worker.engine.llama import LlamaModel
from local_worker.engine.messages import Hidden, Ids
from local_worker.engine.rows import Rows
from local_worker.engine.top_k import TopK
from local_worker.model_files import DEFAULT_RESERVE, packaged_model
from local_worker.packages.assembling import assemble
from local_worker.packages.packing import ManifestTerms, pack
from local_worker.packages.probe_piece import Probe, read_probe

NAME = "nearness"
_CONTEXT_ROWS = 256
_QUESTIONS = 16
_TERMS = ManifestTerms("bench", DEFAULT_RESERVE)


@dataclass(frozen=True)
class _Package:
    folder: Path
    manifest: Manifest

    def chunk(self, first: int, end: int) -> Path:
        out = self.folder.with_name(f"{self.folder.name}-{first}-{end}.gguf")
        assemble(self.folder, self.manifest, first, end, out)
        return out


def run() -> Iterator[Result]:
    """The largest error of hidden states, of logits, and of answers to questions."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = _as_f32(packaged_model(), folder / "f32.gguf")
        packed = _packed(packaged_model(), folder / "packed", with_probe=True)
        unquantised = _packed(plain, folder / "f32", with_probe=False)
        worst = {"hidden": 0.0, "logits": 0.0}
        layers = packed.manifest.layers
        for first, end in itertools.combinations(range(layers + 1), 2):
            probe = read_probe(packed.folder, packed.manifest, first, end, context_rows=_CONTEXT_ROWS)
            assert probe is not None  # it was packed with one
            kind = "hidden" if end < layers else "logits"
            for error in _errors(probe, packed.chunk(first, end), unquantised.chunk(first, end)):
                worst[kind] = max(worst[kind], error)
        allowed = {"hidden": DENSE.worst, "logits": DENSE_LOGITS.worst}
        for kind, error in worst.items():
            yield Result.of(f"{NAME}/{kind}", error, "error", "what a self-test allows", allowed[kind])
        error = _error_of_answers(packaged_model(), plain)
        yield Result.of(f"{NAME}/questions", error, "error", "what a client allows", DENSE_LOGITS.worst)


def _errors(probe: Probe, chunk: Path, unquantised: Path) -> Iterator[float]:
    """The worst row of each kind of other arithmetic."""
    for path, is_fused, step in ((chunk, False, 8), (unquantised, True, 8), (chunk, True, 1)):
        with _loaded(path, is_fused=is_fused) as model:
            tokens = np.array(probe_tokens(model.vocab_size), np.int32)
            rows = _run(model, tokens if probe.entering is None else probe.entering, step)
            if probe.leaving is None:
                yield compare_logits(probe.logits, _largest(model, rows)).worst.error
            else:
                entered = None if probe.entering is None else probe.entering.tobytes()
                width = probe.leaving.shape[1]
                yield compare_hidden(probe.leaving.tobytes(), rows.tobytes(), entered, width).worst.error


def _error_of_answers(model: Path, plain: Path) -> float:
    """Of two whole models of other arithmetic, over several questions."""
    answers: list[list[Answer]] = []
    for path in (model, plain):
        with _loaded(path, is_fused=path == model) as loaded:
            asked = [question(bytes(32), number, loaded.vocab_size) for number in range(_QUESTIONS)]
            answers.append(
                [tuple(_largest(loaded, _run(loaded, np.array(ids, np.int32), 8))) for ids in asked]
            )
    return max(judge(one, other, "").comparison.worst.error for one, other in zip(*answers, strict=True))


def _largest(model: LlamaModel, rows: Hidden) -> list[tuple[Sequence[int], Sequence[float]]]:
    top_k = TopK(model.vocab_size)
    read = [top_k.read(row, position, QUESTION_LOGITS) for position, row in enumerate(rows)]
    return [(row.ids.tolist(), row.logits.tolist()) for row in read]


def _run(model: LlamaModel, inputs: Ids | Hidden, step: int) -> Hidden:
    """All outputs of one sequence's rows, ``step`` at a time."""
    model.truncate(0, 0)
    found = []
    for first in range(0, len(inputs), step):
        part = inputs[first : first + step]
        found.append(np.array(model.decode([Rows(0, first, part, len(part))])[0]))
    return np.concatenate(found)


@contextmanager
def _loaded(path: Path, *, is_fused: bool) -> Iterator[LlamaModel]:
    """A model or a chunk, with llama.cpp's fused attention or without it."""
    default = llama_cpp.llama_context_default_params

    def changed() -> llama_cpp.llama_context_params:
        params: llama_cpp.llama_context_params = default()
        params.flash_attn_type = int(is_fused)
        return params

    llama_cpp.llama_context_default_params = changed
    try:
        model = LlamaModel(path, context_rows=_CONTEXT_ROWS, sequences=1, threads=1, batch_rows=16)
    finally:
        llama_cpp.llama_context_default_params = default
    try:
        yield model
    finally:
        model.close()


def _packed(model: Path, folder: Path, *, with_probe: bool) -> _Package:
    return _Package(folder, pack(model, folder, _TERMS, lambda *_: None, with_probe=with_probe))


def _as_f32(model: Path, out: Path) -> Path:
    """The same weights without quantisation."""
    reader = gguf.GGUFReader(model)
    architecture = reader.fields["general.architecture"]
    writer = gguf.GGUFWriter(str(out), architecture.contents())
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != architecture.name:
            is_array = field.types[0] == gguf.GGUFValueType.ARRAY
            writer.add_key_value(key, field.contents(), field.types[0], field.types[-1] if is_array else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
