"""How much memory may still be taken here: what the machine has free, and what its limits leave.

A process in a container is killed at its cgroup's limit, however much the machine has; so the least of all that bounds
counts. Pages of files that were read once can be given back at any time and count as free.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

FLOOR_BYTES: Final = 64 << 20
"""With less than this free, nothing new is taken on: what is under way still needs some."""
LOOK_EVERY_S: Final = 0.5
_UNLIMITED_BYTES: Final = 1 << 60
"""cgroup v1 writes a number near 2^63 where there is no limit."""
_RESOURCE_LIMITS: Final = (("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData"))


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """What may still be taken, and what bounds it."""

    free_bytes: int
    bound: str
    """In words."""


def free_memory(root: Path = Path("/")) -> FreeMemory:
    """The least of everything that bounds this process.

    Args:
        root: where ``proc`` and ``sys`` lie.
    """
    bounds = [*_machine(root), *_cgroups(root), *_resource_limits(root)]
    return min(bounds, key=lambda one: one.free_bytes)


class MemoryWatch:
    """Says whether memory is short, looking no more often than every half second."""

    def __init__(self, clock_s: Callable[[], float], measure: Callable[[], FreeMemory] = free_memory) -> None:
        """``clock_s``: monotonic seconds."""
        self._clock_s = clock_s
        self._measure = measure
        self._looked_s = float("-inf")
        self._shortage = ""

    def shortage(self) -> str:
        """Why nothing new should be taken on; empty where there is room."""
        now_s = self._clock_s()
        if now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            found = self._measure()
            short = found.free_bytes < FLOOR_BYTES
            self._shortage = f"{found.free_bytes >> 20} MiB are free ({found.bound})" if short else ""
        return self._shortage


def _machine(root: Path) -> Iterator[FreeMemory]:
    available = _fields(root / "proc/meminfo").get("MemAvailable")
    if available is not None:
        yield FreeMemory(available << 10, "what the machine has free")
        return
    # Systems without /proc say how much there is, not how much is free: half of it is a guess that leaves room.
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    yield FreeMemory(pages * size // 2, "half of the machine's memory")


def _cgroups(root: Path) -> Iterator[FreeMemory]:
    """Limits of our control groups and of all above them, of both versions."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for base in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
                yield from _limited(root / base, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            yield from _limited(
                root / "sys/fs/cgroup/memory",
                path,
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )


def _limited(base: Path, path: str, limit: str, usage: str, reclaimable: str) -> Iterator[FreeMemory]:
    inside = PurePosixPath(path.lstrip("/"))
    if ".." in inside.parts:
        return  # a group outside of what this container sees
    for folder in (base / inside, *(base / parent for parent in inside.parents)):
        limit_bytes, used_bytes = _number(folder / limit), _number(folder / usage)
        if limit_bytes is None or used_bytes is None or limit_bytes >= _UNLIMITED_BYTES:
            continue
        files = _fields(folder / "memory.stat").get(reclaimable, 0)
        yield FreeMemory(
            max(0, limit_bytes - used_bytes + files), f"the cgroup's limit of {limit_bytes >> 20} MiB"
        )


def _resource_limits(root: Path) -> Iterator[FreeMemory]:
    own = _fields(root / "proc/self/status")
    for name, used in _RESOURCE_LIMITS:
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY and used in own:
            yield FreeMemory(max(0, soft - (own[used] << 10)), f"{name} of {soft >> 20} MiB")


def _fields(path: Path) -> dict[str, int]:
    """Lines of a name and a number; others are left out."""
    found = {}
    for line in _lines(path):
        name, *rest = line.split()
        if rest and rest[0].isdecimal():
            found[name.rstrip(":")] = int(rest[0])
    return found


def _number(path: Path) -> int | None:
    text = "".join(_lines(path))
    return int(text) if text.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text("ascii", "replace").splitlines() if line.strip()]
    except OSError:
        return []
