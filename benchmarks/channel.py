"""What a sealed channel and its framing cost a token at each hop: rows to the next process and back, sealed ÷ bare.

A hop hands one row of hidden states to another process: packed, framed, sealed, sent, opened, checked. The same bytes
over a bare socket between the same processes are taken off; what is left is the channel's own.

``channel/route`` is all of a route that is not engine: the difference between a token over three stages and over the
same three engines without channels, divided by the four hops (client, three stages, client). Processes that wake,
vouchers, the client's sampling and its messages to every stage are in it. ``channel/cpu`` is the CPU time of client and
stages without their engines, in steady decoding; what of it runs beside the engines delays nobody.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.chunk_models import SMALL
from benchmarks.chunk_race import STRAIGHT, WARM_TOKENS, median_token_s, prompt_of
from benchmarks.engine_chain import Chain
from benchmarks.hop_peer import FAR, LENGTH_BYTES, NEAR, WIDTH, handed_back
from benchmarks.runner import Result
from benchmarks.stage_route import route_over
from dllm_protocol.messages import FORM_F32
from dllm_protocol.stage_link import HandedRows, StageLink
from light_node.channel.dialing import dial
from local_worker.engine.client import Engine
from local_worker.hidden_form import pack

NAME = "channel"
HOP_LIMIT_MS = 0.3
CONTEXT_ROWS = 512
_HOPS = len(STRAIGHT) + 1
_TRIPS = 3000
"""There and back: two hops."""


def run() -> Iterator[Result]:
    """Milliseconds a token and hop."""
    yield asyncio.run(_hop())
    yield from asyncio.run(_measure())


async def _hop() -> Result:
    """One hop of one row, sealed and bare in turn."""
    peer = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.hop_peer"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert peer.stdin is not None and peer.stdout is not None
    sealed_port, bare_port = map(int, (await peer.stdout.readline()).split())
    link = await dial((f"ws://127.0.0.1:{sealed_port}",), timeout_ms=5000)
    reader, writer = await asyncio.open_connection("127.0.0.1", bare_port)
    try:
        stage = StageLink(NEAR.client_stream(FAR.public_key))
        data = pack(np.linspace(-1, 1, WIDTH, dtype=np.float32).reshape(1, WIDTH), FORM_F32)
        frame = stage.seal(HandedRows(1, 0, 1, FORM_F32, data))
        message = len(frame).to_bytes(LENGTH_BYTES, "little") + frame
        sealed: list[float] = []
        bare: list[float] = []
        for number in range(_TRIPS):
            began_s = time.perf_counter()
            await link.send(frame)
            frame = handed_back(stage, await link.receive())
            middle_s = time.perf_counter()
            writer.write(message)
            await reader.readexactly(len(message))
            if number >= _TRIPS // 10:
                sealed.append(middle_s - began_s)
                bare.append(time.perf_counter() - middle_s)
    finally:
        link.abort()
        writer.close()
        peer.stdin.close()
        await peer.wait()
    cost_ms = (statistics.median(sealed) - statistics.median(bare)) * 1000 / 2
    return Result.of(NAME, cost_ms, "ms/hop", "limit for a hop", HOP_LIMIT_MS)


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
        Result.of(f"{NAME}/route", hop_ms, "ms/hop", "limit for a hop", HOP_LIMIT_MS),
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
