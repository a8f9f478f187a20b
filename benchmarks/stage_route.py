"""A route over workers that are processes of their own: started, told of each other, asked, killed."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path

from benchmarks.chunk_models import ChunkModel
from benchmarks.cut_model import manifest_file
from benchmarks.far_line import FarLine
from benchmarks.stage_world import StageSeat, Way, asking, build
from dllm_protocol.model_manifest import Manifest
from tests.e2e.stages import Asking
from tests.local_worker.doubles import ChainDouble

_ROOT = Path(__file__).parent.parent


@dataclass
class StageRoute:
    """Workers of one model's chunks, and clients that ask over them."""

    model: ChunkModel
    folder: Path
    threads: int | None
    context_rows: int | None
    sequences: int | None
    """Both None: as many as each worker's memory allows; likewise threads."""
    line: FarLine | None = None
    """Where given, everything to and from a worker goes over it."""
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """How many sequences each holds."""
    seats: list[StageSeat] = field(default_factory=list)
    sessions: dict[int, Way] = field(default_factory=dict)
    chain: ChainDouble = field(default_factory=lambda: ChainDouble(b"\1" * 20))

    @property
    def manifest(self) -> Manifest:
        """Of the whole model."""
        return Manifest.decode(manifest_file(self.model.path).read_bytes())

    async def start(self, stage: int, launcher: Sequence[str] = ()) -> int:
        """Another worker for this stage; its number. A ``launcher`` is a command that runs the one behind it."""
        chunk = self.model.chunks[stage]
        number = len(self.processes)
        home = self.folder / f"worker-{number}"
        home.mkdir()
        options: dict[str, object] = {
            "chunk": chunk,
            "manifest": manifest_file(self.model.path),
            "home": home,
            "number": number,
            "context-rows": self.context_rows,
            "sequences": self.sequences,
            "threads": self.threads,
        }
        given = [f"--{name}={value}" for name, value in options.items() if value is not None]
        process = _started(launcher, given)
        self.processes.append(process)
        told = json.loads(await self._answer(process))
        endpoint = told["endpoint"]
        self.places.append(told["sequences"])
        if self.line is not None:
            endpoint = await self.line.to(endpoint)
        first, end = list(itertools.pairwise(self.model.bounds))[stage]
        self.seats.append(StageSeat(number, first, end, endpoint))
        return number

    async def client(self, seed: int, way: Way) -> Asking:
        """A session of its own; every worker hears of it."""
        self.sessions[seed] = way
        build(self.chain, self.manifest, self.seats, {seed: way})
        told = json.dumps({"seats": [astuple(seat) for seat in self.seats], "sessions": self.sessions})
        for process in self.processes:
            if process.poll() is None:
                assert process.stdin is not None
                process.stdin.write(told + "\n")
                process.stdin.flush()
                await self._answer(process)
        return asking(self.chain, seed, self.folder)

    def kill(self, number: int) -> None:
        """As a power cut: the process and its engine are gone at once."""
        self.processes[number].send_signal(signal.SIGKILL)

    async def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes:
            await asyncio.to_thread(process.wait)

    async def _answer(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        if not line:
            raise RuntimeError(f"a stage's process ended: {process.wait()}")
        return line.strip()


@asynccontextmanager
async def route_over(
    model: ChunkModel,
    folder: Path,
    *,
    threads: int | None,
    context_rows: int | None,
    sequences: int | None,
    launchers: Sequence[Sequence[str]] = ((), (), ()),
    round_trip_s: float = 0.0,
) -> AsyncIterator[StageRoute]:
    """One worker for each stage, behind its launcher; ``round_trip_s`` lies between any two parties."""
    line = FarLine(round_trip_s) if round_trip_s else None
    route = StageRoute(model, folder, threads, context_rows, sequences, line)
    try:
        # Cutting runs a loop of its own.
        chunks = await asyncio.to_thread(lambda: model.chunks)
        for stage, _ in enumerate(chunks):
            await route.start(stage, launchers[stage])
        yield route
    finally:
        await route.close()
        if line is not None:
            await line.close()


def _started(launcher: Sequence[str], options: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*launcher, sys.executable, "-m", "benchmarks.stage_process", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
