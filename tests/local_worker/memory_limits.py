"""Limits of the system's own for what a test runs: a control group's, of version 2 or 1, where this machine lets us
make one; else each process's own.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_LIMITS = ("memory.max", "memory.limit_in_bytes")
_PEAKS = ("memory.peak", "memory.max_usage_in_bytes")
_KILLS = ("memory.events", "memory.oom_control")


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
        if self.cgroup is None:
            return "sh", "-c", f'ulimit -d {self.size_bytes >> 10} && exec "$@"', "sh"
        return "sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.cgroup / "cgroup.procs")

    def peak_bytes(self) -> int:
        """The most that was ever taken at once; 0 where that is not counted."""
        found = self._first_of(_PEAKS)
        return int(found.read_text()) if found else 0

    def kills(self) -> int:
        """Processes that the system has killed for memory."""
        found = self._first_of(_KILLS)
        lines = [line.split() for line in found.read_text().splitlines()] if found else []
        return sum(int(number) for name, number in lines if name == "oom_kill")

    def _first_of(self, names: tuple[str, ...]) -> Path | None:
        paths = (self.cgroup / name for name in names) if self.cgroup else iter(())
        return next((path for path in paths if path.exists()), None)


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
            folder.rmdir()


def _own_groups() -> Iterator[Path]:
    """Of either version, and those at the top of them."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
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
                return folder
    folder.rmdir()
    return None
