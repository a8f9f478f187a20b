"""Which cores decode: the same ones for both sides of a race of one answer.

The engines of an answer's stages never decode at the same time, so that together they have the threads of the peer, and
cores of their own beside the programs around them, as they have where each stage is a machine. Left to the system, each
stage's engine wakes on whichever core has slept, which a virtual machine's host has lent to others meanwhile, while the
peer's core never sleeps: that measures the host.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.chunk_race import Race

_PROCESSES = Path("/proc")


@contextmanager
def decoding_on_the_same_cores(both: Race, threads: int) -> Iterator[None]:
    """Give the peer and all engines the first ``threads`` cores, and everything else the others, if there are any.

    Engines that start meanwhile are left alone. Only where the system can bind processes to cores (Linux).
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    decoding = set(sorted(cores)[:threads])
    workers = [process.pid for process in both.route.processes]
    if cores > decoding:
        for engine in (both.peer.pid, *(child for worker in workers for child in _children(worker))):
            _bind(engine, decoding)
        for other in (os.getpid(), *workers):
            _bind(other, cores - decoding)
    try:
        yield
    finally:
        _bind(os.getpid(), cores)


def _bind(process: int, cores: Collection[int]) -> None:
    for thread in (_PROCESSES / str(process) / "task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def _children(process: int) -> Iterator[int]:
    for thread in (_PROCESSES / str(process) / "task").iterdir():
        yield from map(int, (thread / "children").read_text().split())
