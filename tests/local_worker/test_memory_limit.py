"""Under a limit of the system's own: a worker takes what fits, refuses under pressure, and does not die of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.chunk_models import ChunkModel
from benchmarks.random_model import make_random_llama
from benchmarks.stage_route import route_over
from benchmarks.stage_world import Way
from dllm_chat.session.front_desk import LegFailed
from local_worker.capacity import DEFAULT_CONTEXT_ROWS, MOST_SEQUENCES, RESERVE_BYTES, needs_of_file
from local_worker.row_room import RowMemory
from tests.conftest import ROOT
from tests.local_worker.memory_limits import Limit, memory_limit
from tests.local_worker.under_a_limit import PROMPT_ROWS

STAGE_LIMIT_BYTES = 384 << 20
WIDTH = 2048
TOKENS = 6
STRAIGHT: Way = [(0, None), (1, None), (2, None)]
BALLAST = """
import sys
from local_worker.memory import FLOOR_BYTES, free_memory
ballast = []
while free_memory().free_bytes >= FLOOR_BYTES - (16 << 20):  # a process that frees some takes nothing back
    ballast.append(bytearray(b"\\1") * (8 << 20))
print("short", flush=True)
sys.stdin.read()
"""


def test_a_worker_lives_within_a_limit_and_refuses_instead_of_dying(tmp_path: Path) -> None:
    model = make_random_llama(
        tmp_path / "model.gguf",
        layers=4,
        n_embd=1024,
        n_ff=128,
        heads=8,
        kv_heads=8,
        vocab_size=512,
        quantisation="Q8_0",
        seed=11,
    )
    wished_bytes = needs_of_file(model).kv_row_bytes * DEFAULT_CONTEXT_ROWS * MOST_SEQUENCES
    with memory_limit(640 << 20) as limit:
        program = [sys.executable, "-m", "tests.local_worker.under_a_limit", str(model), str(tmp_path)]
        done = subprocess.run(
            [*limit.launcher, *program], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert limit.kills() == 0
        peak = limit.peak_bytes()
        assert peak is None or peak <= limit.size_bytes
    told = json.loads(done.stdout)
    assert told["sequences"] >= 2
    assert "640 MiB" in told["bound"]
    assert told["kv_bytes"] < wished_bytes, "without a limit it would have taken more than there is"
    assert "memory is short here" in told["refused"]
    assert told["restarts"] == 0
    assert told["held_at_last"] == PROMPT_ROWS


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> ChunkModel:
    """Rows of it weigh 8 KiB each, in every place that keeps any."""
    path = make_random_llama(
        tmp_path_factory.mktemp("wide") / "wide.gguf",
        layers=3,
        n_embd=WIDTH,
        n_ff=128,
        heads=16,
        kv_heads=16,
        vocab_size=512,
        quantisation="Q8_0",
        seed=12,
    )
    return ChunkModel("wide", lambda: path, (0, 1, 2, 3), tokens=TOKENS, rounds=1, prefill_rounds=1)


@pytest.mark.parametrize("limited", [0, 1])
async def test_a_stage_that_hands_on_lives_within_a_limit_with_all_rows_that_it_keeps(
    wide_model: ChunkModel, tmp_path: Path, limited: int
) -> None:
    """Its places are all used at once, by prompts that fill what it may keep of rows that went on."""
    with memory_limit(STAGE_LIMIT_BYTES) as limit:
        launchers = [limit.launcher if stage == limited else () for stage in range(3)]
        async with route_over(
            wide_model, tmp_path, threads=1, context_rows=None, sequences=None, launchers=launchers
        ) as route:
            places = route.places[limited]
            assert 2 <= places < MOST_SEQUENCES, "without a limit it would have taken more than there is"
            kept_rows = RowMemory.within(RESERVE_BYTES).kept_bytes // (4 * WIDTH)
            prompt = [300 + at % 200 for at in range(kept_rows // places + PROMPT_ROWS)]
            clients = [await route.client(seed, STRAIGHT) for seed in range(1, places + 1)]
            answers = await asyncio.gather(*(client.answer(prompt, TOKENS) for client in clients))
            # What they decode beside each other moves logits a little: only the first token's gap is wide here.
            assert [(answer[0], len(answer)) for answer in answers] == [(answers[0][0], TOKENS)] * places
            assert not any(client.changes for client in clients)
            for client in clients:
                await client.leave()
            if limit.cgroup is None:
                pytest.skip("needs a control group: whoever takes the memory must be under the same limit")
            late = await route.client(99, STRAIGHT)
            with _ballast(limit):
                await asyncio.sleep(1.0)  # until the watch looks again
                with pytest.raises(LegFailed, match="memory is short here"):
                    await late.answer(prompt, 1)
                assert await clients[-1].answer([*prompt, *answers[-1]], 1), "it has its place, and goes on"
            await late.leave()
            await clients[-1].leave()
        assert limit.kills() == 0


@contextmanager
def _ballast(limit: Limit) -> Iterator[None]:
    """Somebody else takes what the limit leaves."""
    process = subprocess.Popen(
        [*limit.launcher, sys.executable, "-c", BALLAST],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "short\n"
        yield
        process.stdin.close()
        process.wait()
