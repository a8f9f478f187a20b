"""What a worker says of itself: one small file in its home, replaced when something changed."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from local_worker.files import write_private
from local_worker.relays import unreachable

STATES = ("starting", "loading", "registering", "serving", "draining", "stopped", "failed")
WRITE_EVERY_S = 1.0
RATE_WINDOW_S = 10.0
MAX_STATUS_BYTES = 64 * 1024
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class SliceStatus:
    """One slice: who offers which layers, and how it goes. Amounts in udllm."""

    owner: str = ""
    provider: str = ""
    operator: str = ""
    model: str = ""
    layers: tuple[int, int] = (0, 0)
    """First layer, and the one behind the last."""
    endpoints: tuple[str, ...] = ()
    """Where it answers, as the chain says it, best first."""
    endpoint_states: dict[str, str] = field(default_factory=dict)
    """By endpoint: ``open``, or why nobody is taken there now."""
    sessions: int = 0
    rows_served: int = 0
    tokens_per_s: float = 0.0
    earned_unclaimed_udllm: int = 0
    claimed_udllm: int = 0
    engine_restarts: int = 0
    sequences: int = 0
    """Sessions whose rows stay in memory."""
    context_rows: int = 0
    """Rows that each of them may have."""
    device: str = ""
    """The graphics card that has layers; empty where only the CPU computes."""
    gpu_layers: int = 0
    """Layers on it."""
    self_test: str = ""
    """How near the last self-test was: ``exact``, ``within 0.01``, or ``no probe`` where the model has none."""
    self_tests: int = 0
    """How many were passed."""


@dataclass(slots=True)
class Status:
    """Everything that ``dllm worker status`` shows. Amounts in udllm.

    Who and what are those of the first slice, numbers those of all slices together.
    """

    pid: int
    state: str = "starting"
    problem: str = ""
    """Why it does not serve, or cannot be reached; empty while it can."""
    chain_id: str = ""
    owner: str = ""
    provider: str = ""
    operator: str = ""
    model: str = ""
    layers: tuple[int, int] = (0, 0)
    backend: str = "llama.cpp"
    """What computes the rows: llama.cpp in a process of ours, or ``openai``, a server's completions interface."""
    backend_url: str = ""
    """That server's address; its key is nowhere in here."""
    endpoints: tuple[str, ...] = ()
    endpoint_states: dict[str, str] = field(default_factory=dict)
    """Of the endpoints of all slices."""
    sessions: int = 0
    rows_served: int = 0
    tokens_per_s: float = 0.0
    earned_unclaimed_udllm: int = 0
    claimed_udllm: int = 0
    engine_restarts: int = 0
    sequences: int = 0
    context_rows: int = 0
    device: str = ""
    gpu_layers: int = 0
    metrics_address: str = ""
    """Where Prometheus' metrics are served, ``host:port``; empty = nowhere."""
    seeds_at: str = ""
    """Where peers fetch pieces of its package from, ``host:port``; empty = nowhere now."""
    seeding_problem: str = ""
    """Why pieces are not served although they should be; it is tried again."""
    self_test: str = ""
    self_tests: int = 0
    slices: tuple[SliceStatus, ...] = ()

    def take(self, slices: Sequence[SliceStatus]) -> None:
        """Say what the slices say now, of which there is at least one."""
        first = slices[0]
        self.slices = tuple(slices)
        self.owner, self.provider, self.operator = first.owner, first.provider, first.operator
        self.model, self.layers, self.endpoints = first.model, first.layers, first.endpoints
        self.endpoint_states = {}
        for one in slices:
            self.endpoint_states |= one.endpoint_states
        if self.state != "failed":
            reasons = (unreachable(one.endpoint_states) for one in slices)
            self.problem = "; ".join(dict.fromkeys(reason for reason in reasons if reason))
        self.sessions = sum(one.sessions for one in slices)
        self.rows_served = sum(one.rows_served for one in slices)
        self.tokens_per_s = round(sum(one.tokens_per_s for one in slices), 1)
        self.earned_unclaimed_udllm = sum(one.earned_unclaimed_udllm for one in slices)
        self.claimed_udllm = sum(one.claimed_udllm for one in slices)
        self.engine_restarts = sum(one.engine_restarts for one in slices)
        self.sequences = sum(one.sequences for one in slices)
        self.context_rows = min(one.context_rows for one in slices)
        self.device = next((one.device for one in slices if one.device), "")
        self.gpu_layers = sum(one.gpu_layers for one in slices)
        self.self_test = first.self_test
        self.self_tests = sum(one.self_tests for one in slices)


class RowMeter:
    """Counts rows, and how many a second lately."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._recent: deque[tuple[float, int]] = deque(maxlen=4096)
        self.rows = 0

    def count(self, rows: int) -> None:
        """So many rows were decoded just now."""
        self.rows += rows
        if rows:
            self._recent.append((self._clock_s(), rows))

    @property
    def rows_per_s(self) -> float:
        """Rows a second over the last ten seconds."""
        horizon = self._clock_s() - RATE_WINDOW_S
        while self._recent and self._recent[0][0] < horizon:
            self._recent.popleft()
        return round(sum(rows for _, rows in self._recent) / RATE_WINDOW_S, 1)


class StatusFile:
    """Writes a status to ``status.json`` when it differs from what was written last."""

    def __init__(self, home: Path) -> None:
        self._path = status_file(home)
        self._written: dict[str, Any] | None = None
        self._failure = ""

    def write(self, status: Status) -> None:
        """Write now, if anything changed; where the disk does not take it, the next time is another try.

        It only tells: a full disk is no reason to serve nobody, or to leave without having settled.
        """
        content = asdict(status)
        if content == self._written:
            return
        try:
            # Not durable: after a power cut no worker runs, and the next one writes its own.
            write_private(self._path, (json.dumps(content) + "\n").encode(), durable=False)
        except OSError as error:
            if str(error) != self._failure:
                _log.warning("%s is out of date: %s", self._path, error)
            self._failure = str(error)
            return
        self._written, self._failure = content, ""

    async def keep(self, current: Callable[[], Awaitable[Status]]) -> None:
        """Write every second, for ever."""
        while True:
            self.write(await current())
            await asyncio.sleep(WRITE_EVERY_S)


def status_file(home: Path) -> Path:
    """Where a home keeps its status."""
    return home / "status.json"


def read_status(home: Path) -> dict[str, Any] | None:
    """What the worker of a home last said; None where none ever ran."""
    try:
        with status_file(home).open("rb") as file:
            content = json.loads(file.read(MAX_STATUS_BYTES))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
