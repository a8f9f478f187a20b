"""Records a model's probe while its package is made.

It never holds the model: one block at a time is put together from its pieces as a file of its own, which an engine
process maps and runs, on the CPU and with weights as the file has them. What all blocks one after the other give is to
the bit what the whole model gives in the same way.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from dllm_protocol.errors import DllmError
from dllm_protocol.model_manifest import Manifest, Piece
from dllm_protocol.model_package.layout import PiecePlan
from dllm_protocol.model_package.probe import (
    LONG,
    PROBE_LOGITS,
    SHORT,
    ProbeShape,
    hidden_name,
    logit_ids_name,
    logits_name,
    plan_probe,
    probe_tokens,
)
from dllm_protocol.model_package.torrent import PieceHashes
from local_worker.engine.client import Engine
from local_worker.engine.errors import DecodeFailed, DecodeRefused, EngineGone, ModelRefused
from local_worker.engine.messages import Hidden, Ids, Logits, RowOutput
from local_worker.packages.assembling import assemble
from local_worker.packages.disk import COPY_BYTES, create_file, write_all
from local_worker.packages.package import piece_path
from local_worker.packages.spans import store_spans

CONTEXT_ROWS: Final = 256
"""llama.cpp's shortest context, and its step."""
_BLOCK_FILE: Final = "block.gguf"
_Values = Hidden | Ids | Logits


@dataclass(frozen=True, slots=True)
class ProbedModel:
    """What there is to know of a model for its probe."""

    architecture: str
    layers: int
    n_embd: int
    vocab_size: int
    short_rows: int | None
    """Longest context on the short side; None where there are no sides."""

    def plan(self) -> PiecePlan:
        """The head of its probe's piece."""
        width = self.n_embd if self.layers > 1 else 0
        logits = min(PROBE_LOGITS, self.vocab_size)
        return plan_probe(
            self.architecture, ProbeShape(self.layers, width, logits, self.short_rows is not None)
        )

    def sides(self) -> list[tuple[str, int]]:
        """Each side, with a context that stands on it."""
        return [(SHORT, CONTEXT_ROWS), *([(LONG, self.short_rows + CONTEXT_ROWS)] if self.short_rows else [])]


async def record_probe(
    folder: Path,
    manifest: Manifest,
    model: ProbedModel,
    *,
    progress: Callable[[str, int, int], None],
    log: Path,
) -> Piece:
    """Run a package's blocks one after the other and write its probe among its pieces.

    Args:
        folder: a package with all pieces; room for a block's file is taken there meanwhile.
        manifest: naming them, without a probe.
        progress: called for each block before it is run.

    Raises:
        ModelRefused: llama.cpp does not run a block.
        PieceRefused, PackageNotFound, DiskFull, OutputRefused
    """
    plan = model.plan()
    unnamed, block = folder / ".probe", folder / _BLOCK_FILE
    descriptor = create_file(unnamed)
    try:
        write_all(descriptor, plan.raw_head)
        os.ftruncate(descriptor, plan.head.size_bytes)
        rows: dict[str, Hidden] = {}
        for layer in range(model.layers):
            progress(f"probe of block {layer}", layer + 1, model.layers)
            assemble(folder, manifest, layer, layer + 1, block)
            for side, context_rows in model.sides():
                try:
                    said = await _run_block(block, rows.get(side), model.vocab_size, context_rows, log)
                except (ModelRefused, EngineGone, DecodeFailed, DecodeRefused) as error:
                    raise _not_run(layer, error) from error
                if isinstance(said, np.ndarray):
                    rows[side] = said
                    _put(descriptor, plan, hidden_name(layer + 1, side), said.astype("<f4", copy=False))
                else:
                    logits, ids = (
                        np.stack(one) for one in zip(*((r.logits, r.ids) for r in said), strict=True)
                    )
                    _put(descriptor, plan, logits_name(side), logits.astype("<f4"))
                    _put(descriptor, plan, logit_ids_name(side), ids.astype("<i4"))
        os.fsync(descriptor)
        piece, hashes = _piece_of(descriptor, plan)
    finally:
        os.close(descriptor)
        block.unlink(missing_ok=True)
    store_spans(folder, piece, hashes.spans())
    unnamed.replace(piece_path(folder, piece))
    return piece


def _not_run(layer: int, error: DllmError) -> ModelRefused:
    return ModelRefused(
        f"llama.cpp does not run block {layer} of the model: {error.message}",
        hint="--no-probe makes a package without a probe, whose chunks prove nothing before they serve",
    )


async def _run_block(
    path: Path, rows: Hidden | None, vocab_size: int, context_rows: int, log: Path
) -> Hidden | list[RowOutput]:
    engine = await Engine.start(
        path,
        context_rows=context_rows,
        sequences=1,
        threads=None,
        log_path=log,
        gpu_layers=0,
        as_stored=True,
    )
    try:
        sequence = engine.open_sequence()
        tokens, top_k = probe_tokens(vocab_size), min(PROBE_LOGITS, vocab_size)
        if engine.info.gives_hidden:
            return await (sequence.enter(0, tokens) if rows is None else sequence.pass_on(0, rows))
        if rows is None:
            return await sequence.decode(0, tokens, top_k=top_k, outputs="all")
        return await sequence.leave(0, rows, top_k=top_k, outputs="all")
    finally:
        await engine.close()


def _put(descriptor: int, plan: PiecePlan, name: str, values: _Values) -> None:
    """Write a tensor at its place; the piece's tensors do not come in the order of their names."""
    tensor = next(one for one in plan.head.tensors if one.name == name)
    data = memoryview(values.tobytes())
    if len(data) != tensor.size_bytes:
        raise ModelRefused(f"{name} came as {len(data)} bytes, {tensor.size_bytes} are right")
    at = plan.head.data_start + tensor.offset
    while data:
        written = os.pwrite(descriptor, data, at)
        data, at = data[written:], at + written


def _piece_of(descriptor: int, plan: PiecePlan) -> tuple[Piece, PieceHashes]:
    hashes = PieceHashes(plan.head.size_bytes)
    while data := os.pread(descriptor, COPY_BYTES, hashes.size_bytes):
        hashes.update(data)
    return Piece(plan.kind, plan.index, hashes.size_bytes, hashes.root()), hashes
