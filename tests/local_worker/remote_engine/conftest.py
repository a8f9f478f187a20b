"""A double over the tiny model's vocabulary, and an engine that serves from it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_worker.engine.client import Engine
from local_worker.remote_engine.engine import RemoteEngine
from local_worker.remote_engine.options import RemoteLimits, RemoteServer
from tests.local_worker.remote_engine.double import LLAMA_SERVER, VLLM, Double, double_server

CONTEXT_ROWS = 200
LIMITS = RemoteLimits(
    connect_s=5, first_row_s=20, row_s=20, answer_s=20, pause_s=0.01, longest_pause_s=0.05, idle_s=30
)
StartRemote = Callable[..., Awaitable[RemoteEngine]]


@pytest.fixture
async def words(tiny_model: Path, tmp_path: Path) -> AsyncIterator[Engine]:
    """The tiny model's tokenizer."""
    started = await Engine.start(
        tiny_model, context_rows=256, sequences=1, threads=1, log_path=tmp_path / "words.log", words_only=True
    )
    yield started
    await started.close()


@pytest.fixture(params=[VLLM, LLAMA_SERVER])
async def double(request: pytest.FixtureRequest, words: Engine) -> AsyncIterator[Double]:
    """A server that answers in either form."""
    async with double_server(await words.vocabulary(), words) as server:
        server.form = request.param
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
