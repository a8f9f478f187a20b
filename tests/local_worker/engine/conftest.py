"""An engine that serves the tiny model, and the bare loop to judge the engine by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from benchmarks.bare_loop import BareLoop
from local_worker.engine.client import Engine

CONTEXT_ROWS = 512


@pytest.fixture(scope="session")
def bare(tiny_model: Path) -> Iterator[BareLoop]:
    loop = BareLoop(tiny_model, threads=1, context_rows=CONTEXT_ROWS)
    yield loop
    loop.close()


@pytest.fixture
async def engine(tiny_model: Path, tmp_path: Path) -> AsyncIterator[Engine]:
    started = await Engine.start(
        tiny_model, context_rows=CONTEXT_ROWS, sequences=4, threads=1, log_path=tmp_path / "engine.log"
    )
    yield started
    await started.close()
