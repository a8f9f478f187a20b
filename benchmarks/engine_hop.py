"""What a process of its own costs llama.cpp: greedy decoding through the engine's door ÷ the bare loop."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bare_loop import BareLoop
from benchmarks.random_model import hundred_million
from benchmarks.runner import Result, interleaved_medians
from local_worker.engine.client import Engine
from local_worker.engine.process import default_threads
from local_worker.engine.sequence import Sequence

NAME = "engine-hop"
HOP_LIMIT_MS = 0.15
_CONTEXT_ROWS = 1024
_TOKENS = 100
_PROMPT = list(range(300, 332))


def run() -> Iterator[Result]:
    """Tokens a second through the engine against the bare loop, and the difference in ms a token."""
    ours_s, bare_s = measure(hundred_million(), rounds=7)
    yield Result.of(NAME, 1 / ours_s, "tokens/s", "bare llama.cpp loop, same file and threads", 1 / bare_s)
    hop_ms = (ours_s - bare_s) * 1000
    yield Result.of(f"{NAME}/cost", hop_ms, "ms/token", "limit for the hop", HOP_LIMIT_MS)


def measure(path: Path, *, rounds: int) -> tuple[float, float]:
    """Seconds a token: (through the engine, bare), medians of interleaved rounds of 100 tokens."""
    threads = default_threads()
    bare = BareLoop(path, threads=threads, context_rows=_CONTEXT_ROWS)
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        engine = runner.run(
            Engine.start(
                path,
                context_rows=_CONTEXT_ROWS,
                sequences=4,
                threads=threads,
                log_path=Path(folder) / "engine.log",
            )
        )
        sequence = engine.open_sequence()
        try:
            return interleaved_medians(
                lambda: runner.run(_through_engine(sequence)), lambda: _bare(bare), rounds=rounds
            )
        finally:
            runner.run(engine.close())
            bare.close()


async def _through_engine(sequence: Sequence) -> float:
    rows = await sequence.decode(0, _PROMPT, top_k=40, outputs="last")
    started = time.perf_counter()
    for position in range(len(_PROMPT), len(_PROMPT) + _TOKENS):
        rows = await sequence.decode(position, [int(rows[0].ids[0])], top_k=40, outputs="last")
    return (time.perf_counter() - started) / _TOKENS


def _bare(loop: BareLoop) -> float:
    first = loop.start(_PROMPT)
    started = time.perf_counter()
    loop.greedy(first, len(_PROMPT), _TOKENS)
    return (time.perf_counter() - started) / _TOKENS
