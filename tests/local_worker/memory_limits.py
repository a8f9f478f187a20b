"""Limits of the system's own for what a test runs: a control group's, of version 2 or 1, where this machine lets us
make one; else each process's own. Nothing is swapped out, and two cores are used at most: every thread takes memory.
"""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_LIMITS = ("memory.max", "memory.limit_in_bytes")
_SWAPS = {"memory.swap.max": "0", "memory.swappiness": "0"}
_PEAKS = ("memory.peak", "memory.max_usage_in_bytes")
_KILLS = ("memory.events", "memory.oom_control")
_LAUNCHER = """
import os, resource, sys
size_bytes, group, *command = sys.argv[1:]
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
if group:
    with open(f"{group}/cgroup.procs", "w") as members:
        members.write(str(os.getpid()))
else:
    resource.setrlimit(resource.RLIMIT_DATA, (int(size_bytes), int(size_bytes)))
os.execvp(command[0], command)
"""


@dataclass(frozen=True)
class Limit:
    """Where processes come under a limit.

    Attributes:
        cgroup: the group's folder; None: each process has the limit of its own.
    """

    size_bytes: int
    cgroup: Path | None

    @property
    def launcher(self) -> tuple[str, ...]:
        """A command that runs the one behind it under the limit."""
        return sys.executable, "-c", _LAUNCHER, str(self.size_bytes), str(self.cgroup or "")

    def peak_bytes(self) -> int | None:
        """The most that was ever taken at once; None where nobody counts that."""
        found = self._those_there(_PEAKS)
        return int(found[0].read_text()) if found else None

    def kills(self) -> int:
        """Processes that the system has killed for memory."""
        found = self._those_there(_KILLS)
        lines = [line.split() for path in found for line in path.read_text().splitlines()]
        return sum(int(number) for name, number in lines if name == "oom_kill")

    def _those_there(self, names: tuple[str, ...]) -> list[Path]:
        return [self.cgroup / name for name in names if self.cgroup and (self.cgroup / name).exists()]


@contextlib.contextmanager
def memory_limit(size_bytes: int) -> Iterator[Limit]:
    """A limit that is there until the block ends, by when nothing may run under it any more."""
    if not Path("/proc/self").exists():
        pytest.skip("needs Linux: other systems have no limits to be measured")
    folder = next((made for base in _own_groups() if (made := _new_group(base, size_bytes))), None)
    try:
        yield Limit(size_bytes, folder)
    finally:
        if folder is not None:
            # What a test that failed left running in it keeps the group; the failure is what is to be seen then.
            with contextlib.suppress(OSError):
                folder.rmdir()


def is_group_makeable() -> bool:
    """Whether this machine lets us make a control group with a limit."""
    folder = next((made for base in _own_groups() if (made := _new_group(base, 1 << 30))), None)
    if folder is not None:
        folder.rmdir()
    return folder is not None


def _own_groups() -> Iterator[Path]:
    """Of either version, and those at the top of them."""
    own = Path("/proc/self/cgroup")
    for line in own.read_text().splitlines() if own.exists() else ():
        number, controllers, path = line.split(":", 2)
        if number == "0" or "memory" in controllers.split(","):
            base = Path("/sys/fs/cgroup" if number == "0" else "/sys/fs/cgroup/memory")
            yield base / path.lstrip("/")
            yield base


def _new_group(base: Path, size_bytes: int) -> Path | None:
    folder = base / f"dllm-test-{uuid.uuid4().hex}"
    try:
        folder.mkdir()
    except OSError:
        return None
    for name in _LIMITS:
        with contextlib.suppress(OSError):
            if (folder / name).exists():
                (folder / name).write_text(str(size_bytes))
                _forbid_swapping(folder)
                return folder
    folder.rmdir()
    return None


def _forbid_swapping(folder: Path) -> None:
    for name, value in _SWAPS.items():
        if (folder / name).exists():
            (folder / name).write_text(value)
