"""Under a limit of the system's own: a worker takes what fits, refuses under pressure, and does not die of it.

The limit is a control group's, of version 2 or 1, where this machine lets us make one; else the process's own.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.random_model import make_random_llama
from local_worker.capacity import DEFAULT_CONTEXT_ROWS, MOST_SEQUENCES, needs_of_file
from tests.conftest import ROOT
from tests.local_worker.under_a_limit import PROMPT_ROWS

LIMIT_BYTES = 640 << 20
_LIMITS = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}
_PEAKS = ("memory.peak", "memory.max_usage_in_bytes")
_KILLS = ("memory.events", "memory.oom_control")


@dataclass(frozen=True)
class Limit:
    """Where processes come under a limit; None: each has it of its own."""

    cgroup: Path | None

    def peak_bytes(self) -> int | None:
        found = [self.cgroup / name for name in _PEAKS if self.cgroup and (self.cgroup / name).exists()]
        return int(found[0].read_text()) if found else None

    def kills(self) -> int:
        """Processes that the system has killed for memory."""
        found = [self.cgroup / name for name in _KILLS if self.cgroup and (self.cgroup / name).exists()]
        lines = [line.split() for path in found for line in path.read_text().splitlines()]
        return sum(int(number) for name, number in lines if name == "oom_kill")


@pytest.fixture
def limit() -> Iterator[Limit]:
    if not Path("/proc/self").exists():
        pytest.skip("needs Linux: other systems have no limits to be measured")
    folder = next((made for base in _group_folders() if (made := _new_group(base))), None)
    yield Limit(folder)
    if folder is not None:
        folder.rmdir()


def _group_folders() -> Iterator[Path]:
    """Our own groups, of either version."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" or "memory" in controllers.split(","):
            base = Path("/sys/fs/cgroup" if number == "0" else "/sys/fs/cgroup/memory")
            yield base / path.lstrip("/")
            yield base


def _new_group(base: Path) -> Path | None:
    folder = base / f"dllm-test-{uuid.uuid4().hex}"
    try:
        folder.mkdir()
    except OSError:
        return None
    for name in _LIMITS:
        with contextlib.suppress(OSError):
            if (folder / name).exists():
                (folder / name).write_text(str(LIMIT_BYTES))
                return folder
    folder.rmdir()
    return None


def test_a_worker_lives_within_a_limit_and_refuses_instead_of_dying(limit: Limit, tmp_path: Path) -> None:
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
    arguments = [str(model), str(tmp_path), str(LIMIT_BYTES), *([str(limit.cgroup)] if limit.cgroup else [])]
    done = subprocess.run(
        [sys.executable, "-m", "tests.local_worker.under_a_limit", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["sequences"] >= 2
    assert f"{LIMIT_BYTES >> 20} MiB" in told["bound"]
    assert told["kv_bytes"] < wished_bytes, "without a limit it would have taken more than there is"
    assert "memory is short here" in told["refused"]
    assert told["restarts"] == 0
    assert told["held_at_last"] == PROMPT_ROWS
    assert limit.kills() == 0
    peak = limit.peak_bytes()
    assert peak is None or peak <= LIMIT_BYTES
