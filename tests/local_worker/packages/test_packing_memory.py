"""Packing, its probe included, under a limit that is less than one block of the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf

from dllm_protocol.model_manifest import PIECE_BLOCK, probe_of
from local_worker.packages.package import load_package
from tests.conftest import ROOT
from tests.local_worker.memory_limits import memory_limit
from tests.local_worker.packages.tiny_models import Shape, write_model

LIMIT_BYTES = 320 << 20


def test_a_model_is_packed_in_less_memory_than_one_of_its_blocks(tmp_path: Path) -> None:
    """In a format that llama.cpp else turns into a faster one, which it keeps in memory."""
    shape = Shape(
        "broad",
        "llama",
        layers=2,
        n_embd=8192,
        n_ff=25600,
        kind=gguf.GGMLQuantizationType.Q4_0,
        distinct_rows=64,
    )
    model, package = write_model(tmp_path / "broad.gguf", shape), tmp_path / "broad.package"
    program = [sys.executable, "-m", "dllm_chat.cli.main", "model", "pack", str(model), "--out", str(package)]
    with memory_limit(LIMIT_BYTES) as limit:
        done = subprocess.run(
            [*limit.launcher, *program], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert limit.kills() == 0
    manifest = load_package(package)
    assert probe_of(manifest) is not None
    blocks = [piece for piece in manifest.pieces if piece.kind == PIECE_BLOCK]
    assert len(blocks) == 2
    assert min(piece.size_bytes for piece in blocks) > LIMIT_BYTES
