"""One package for all: four blocks of some spans each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.local_worker.packages.chains import packed
from tests.local_worker.packages.tiny_models import SHAPES, write_model
from tests.local_worker.swarm.rig import Made


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A package whose blocks have nine spans, and whose header has one. Not to be changed."""
    folder = tmp_path_factory.mktemp("swarm")
    shape = replace(SHAPES["llama"], n_embd=256, n_ff=512, heads=4, head=64)
    return Made(folder / "package", packed(write_model(folder / "m.gguf", shape), folder / "package"))
