"""A tiny model with random weights for everything that serves one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.random_model import make_random_llama
from tests.local_worker.probed import ProbedModels


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of two layers that knows 1,000 tokens; f32, so that batch shapes hardly move its logits."""
    return make_random_llama(
        tmp_path_factory.mktemp("model") / "Tiny Model.gguf",
        layers=2,
        n_embd=64,
        n_ff=128,
        heads=4,
        kv_heads=2,
        vocab_size=1000,
        quantisation="F32",
        seed=7,
    )


@pytest.fixture(scope="session")
def probed_models(tmp_path_factory: pytest.TempPathFactory) -> ProbedModels:
    """Packages of tiny models with their probes, by the model's name; each is made once."""
    return ProbedModels(tmp_path_factory.mktemp("probed"))
