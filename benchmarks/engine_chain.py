"""Three engine processes in a row, without channels: what the engine room costs beside llama.cpp whole.

Hidden states go from engine to engine through this process, which is the floor of what a route over three workers
can reach: `chunks_*` measure the rest. Both sides have the same threads and the same rows in a batch.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.chunk_models import MODELS, ChunkModel
from benchmarks.llama_peer import LlamaPeer
from benchmarks.runner import Result
from local_worker.engine.client import Engine
from local_worker.engine.process import default_threads
from local_worker.engine.sequence import Sequence

NAME = "engine-chain"
CONTEXT_ROWS = 1280
STREAMS = 8
SLICE_ROWS = 256
PROMPT = list(range(300, 332))
LONG_PROMPT = [300 + at * 7 % 20000 for at in range(1000)]


def run() -> Iterator[Result]:
    """One stream, eight streams and a prompt of 1,000 rows, for each model."""
    for model in MODELS:
        yield from measure(model, threads=default_threads())


def measure(model: ChunkModel, *, threads: int, context_rows: int = CONTEXT_ROWS) -> Iterator[Result]:
    """All results of one model."""
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        peer = LlamaPeer(model.path, threads=threads, context_rows=context_rows, sequences=STREAMS)
        chain = Chain([])
        try:
            for path in model.chunks:
                chain.engines.append(
                    runner.run(
                        Engine.start(
                            path,
                            context_rows=context_rows,
                            sequences=STREAMS,
                            threads=threads,
                            log_path=Path(folder) / "engine.log",
                        )
                    )
                )
            yield from _compare(model, runner, chain, peer)
        finally:
            runner.run(chain.close())
            peer.close()


def _compare(model: ChunkModel, runner: asyncio.Runner, chain: Chain, peer: LlamaPeer) -> Iterator[Result]:
    whole = "llama.cpp whole, same threads"
    for name, streams in (("one-stream", 1), ("eight-streams", STREAMS)):
        prompts = [[stream + token for token in PROMPT] for stream in range(streams)]
        ours: list[float] = []
        theirs: list[float] = []
        for number in range(1 + model.rounds):
            step_s, said = runner.run(chain.answers(prompts, model.tokens))
            whole_s, expected = peer.answers(prompts, model.tokens)
            if streams == 1 and said != expected:
                raise RuntimeError(f"{model.name}: the chain and the whole model do not say the same")
            if number:
                ours.append(step_s)
                theirs.append(whole_s)
        ours_s, theirs_s = statistics.median(ours), statistics.median(theirs)
        yield Result.of(
            f"{NAME}/{name}-{model.name}", streams / ours_s, "tokens/s", whole, streams / theirs_s
        )
    ours, theirs = [], []
    for number in range(1 + model.rounds):
        first_s, _token = runner.run(chain.prefill(LONG_PROMPT))
        whole_s, _expected_token = peer.prefill(LONG_PROMPT)
        if number:
            ours.append(first_s)
            theirs.append(whole_s)
    yield Result.of(
        f"{NAME}/prefill-{model.name}",
        statistics.median(ours),
        "s",
        "llama.cpp whole, prefill of the same rows",
        statistics.median(theirs),
    )


class Chain:
    """Engines of consecutive layers."""

    def __init__(self, engines: list[Engine]) -> None:
        self.engines = engines

    async def close(self) -> None:
        """End all."""
        await asyncio.gather(*(engine.close() for engine in self.engines))

    async def answers(
        self, prompts: list[list[int]], tokens: int, on_token: Callable[[], None] = lambda: None
    ) -> tuple[float, list[list[int]]]:
        """Greedy answers to all prompts at once: seconds a token of each, and the tokens."""
        routes = [[engine.open_sequence() for engine in self.engines] for _ in prompts]
        try:
            said = [[await through(route, 0, prompt)] for route, prompt in zip(routes, prompts, strict=True)]
            started = time.perf_counter()
            await asyncio.gather(
                *(
                    _answer(route, len(prompt), tokens, own, on_token)
                    for route, prompt, own in zip(routes, prompts, said, strict=True)
                )
            )
            return (time.perf_counter() - started) / tokens, said
        finally:
            for route in routes:
                for sequence in route:
                    sequence.close()

    async def prefill(self, prompt: list[int], *, overlapping: bool = False) -> tuple[float, int]:
        """Seconds to the first token behind a prompt that passes in slices, and the token."""
        route = [engine.open_sequence() for engine in self.engines]
        try:
            started = time.perf_counter()
            slices = [(at, prompt[at : at + SLICE_ROWS]) for at in range(0, len(prompt), SLICE_ROWS)]
            if overlapping:
                token = await _pipelined(route, slices)
            else:
                for at, ids in slices:
                    token = await through(route, at, ids)
            return time.perf_counter() - started, token
        finally:
            for sequence in route:
                sequence.close()


async def _pipelined(route: list[Sequence], slices: list[tuple[int, list[int]]]) -> int:
    """Each stage works on its slice while the next one is a slice behind."""
    turn = [asyncio.Lock() for _ in route]

    async def one(at: int, ids: list[int]) -> int:
        async with turn[0]:
            hidden = await route[0].enter(at, ids)
        for lock, sequence in zip(turn[1:-1], route[1:-1], strict=True):
            async with lock:
                hidden = await sequence.pass_on(at, hidden)
        async with turn[-1]:
            rows = await route[-1].leave(at, hidden, top_k=40, outputs="last")
        return int(rows[0].ids[0])

    return (await asyncio.gather(*(one(at, ids) for at, ids in slices)))[-1]


async def through(route: list[Sequence], position: int, ids: list[int]) -> int:
    """Rows through all stages: the likeliest token behind the last."""
    hidden = await route[0].enter(position, ids)
    for sequence in route[1:-1]:
        hidden = await sequence.pass_on(position, hidden)
    rows = await route[-1].leave(position, hidden, top_k=40, outputs="last")
    return int(rows[0].ids[0])


async def _answer(
    route: list[Sequence], position: int, tokens: int, said: list[int], on_token: Callable[[], None]
) -> None:
    for at in range(position, position + tokens):
        said.append(await through(route, at, [said[-1]]))
        on_token()
