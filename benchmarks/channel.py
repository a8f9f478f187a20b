"""What sealed channels, framing and vouchers cost a token at each hop: a route ÷ its engines asked without them.

The model is so small that a token takes its engines a few milliseconds; the difference between the two, divided by the
four hops (client, three stages, client), is all that is not engine: processes woken, frames sealed and opened, now and
then a voucher. ``channel/cpu`` is the CPU time of client and stages without their engines, in steady decoding; other
work on the machine changes it less. What of it runs beside the engines delays nobody.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.chunk_models import SMALL
from benchmarks.chunk_race import STRAIGHT, WARM_TOKENS, median_token_s, prompt_of
from benchmarks.engine_chain import Chain
from benchmarks.runner import Result
from benchmarks.stage_route import route_over
from local_worker.engine.client import Engine

NAME = "channel"
HOP_LIMIT_MS = 0.3
CONTEXT_ROWS = 512
_HOPS = len(STRAIGHT) + 1


def run() -> Iterator[Result]:
    """Milliseconds a token and hop."""
    yield from asyncio.run(_measure())


async def _measure() -> list[Result]:
    model = SMALL
    chunks = await asyncio.to_thread(lambda: model.chunks)
    routes, bare, cpu = [], [], []
    with tempfile.TemporaryDirectory(prefix="dllm-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        engines = [
            await Engine.start(
                chunk,
                context_rows=CONTEXT_ROWS,
                sequences=1,
                threads=1,
                log_path=folder / "engine.log",
            )
            for chunk in chunks
        ]
        chain = Chain(engines)
        async with route_over(model, folder, threads=1, context_rows=CONTEXT_ROWS, sequences=1) as route:
            client = await route.client(1, STRAIGHT)
            pids = [os.getpid(), *(process.pid for process in route.processes)]
            for number in range(1 + model.rounds):
                prompt = prompt_of(number)
                at_s: list[float] = []
                began_s = 0.0
                async for _ in client.tokens(prompt, WARM_TOKENS + model.tokens):
                    at_s.append(time.perf_counter())
                    if len(at_s) == WARM_TOKENS:
                        began_s = sum(map(cpu_seconds, pids))
                cpu_s = sum(map(cpu_seconds, pids)) - began_s
                await client.leave()
                step_s = await _bare(chain, prompt, WARM_TOKENS + model.tokens)
                if number:
                    routes.append(median_token_s(at_s))
                    cpu.append(cpu_s / model.tokens)
                    bare.append(step_s)
        await chain.close()
    hop_ms = (statistics.median(routes) - statistics.median(bare)) * 1000 / _HOPS
    return [
        Result.of(NAME, hop_ms, "ms/hop", "limit for a hop", HOP_LIMIT_MS),
        Result.of(
            f"{NAME}/cpu", statistics.median(cpu) * 1000 / _HOPS, "ms/hop", "limit for a hop", HOP_LIMIT_MS
        ),
        Result.of(
            f"{NAME}/token",
            statistics.median(routes) * 1000,
            "ms",
            "the same engines without channels",
            statistics.median(bare) * 1000,
        ),
    ]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process without its engine; 0 where the system does not tell (not Linux)."""
    return (
        sum(int(stat.read_text().split()[0]) for stat in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
    )


async def _bare(chain: Chain, prompt: list[int], count: int) -> float:
    at_s: list[float] = []
    await chain.answers([prompt], count, on_token=lambda: at_s.append(time.perf_counter()))
    return median_token_s(at_s)
