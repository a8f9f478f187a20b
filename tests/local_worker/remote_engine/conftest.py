"""A double over the tiny model's vocabulary, and an engine that serves from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_worker.engine.messages import EngineVocabulary
from local_worker.engine.vocabulary_of import vocabulary_of
from local_worker.remote_engine.engine import RemoteEngine
from local_worker.remote_engine.options import RemoteLimits, RemoteServer
from tests.local_worker.remote_engine.double import VLLM, Double, double_server

CONTEXT_ROWS = 200
LIMITS = RemoteLimits(
    connect_s=5, first_row_s=20, row_s=20, answer_s=20, pause_s=0.01, longest_pause_s=0.05, idle_s=30
)
StartRemote = Callable[..., Awaitable[RemoteEngine]]


@pytest.fixture(scope="session")
def tiny_vocabulary(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> EngineVocabulary:
    """The tiny model's tokens."""
    log_path = tmp_path_factory.mktemp("words") / "log"
    return asyncio.run(vocabulary_of(tiny_model, log_path))


@pytest.fixture
async def double(request: pytest.FixtureRequest, tiny_vocabulary: EngineVocabulary) -> AsyncIterator[Double]:
    """A server that answers in vLLM's form, or in the one that a test asks for."""
    async with double_server(tiny_vocabulary) as server:
        server.form = getattr(request, "param", VLLM)
        yield server


@pytest.fixture
async def start_remote(tiny_model: Path, tmp_path: Path, double: Double) -> AsyncIterator[StartRemote]:
    """Start engines on the double; they are closed at the end."""
    started: list[RemoteEngine] = []

    async def start(
        *, sequences: int = 2, model: str | None = None, key: str = "", **limits: Any
    ) -> RemoteEngine:
        server = RemoteServer(double.url, model, key, replace(LIMITS, **limits))
        engine = await RemoteEngine.start(
            tiny_model,
            server,
            context_rows=CONTEXT_ROWS,
            sequences=sequences,
            log_path=tmp_path / "remote.log",
        )
        started.append(engine)
        return engine

    yield start
    for engine in started:
        await engine.close()
