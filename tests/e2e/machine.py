"""One person's machine: a home, the processes that live from it, and terminals opened on it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dllm_chat.config import Config
from dllm_chat.paths import find_paths
from dllm_chat.session.events import (
    Answer,
    Answered,
    AskEvent,
    AskOptions,
    Routed,
    Sampling,
    TextDelta,
    TookOver,
)
from dllm_chat.session.service import ChatService
from dllm_protocol.chat_templates import ChatMessage

ROOT = Path(__file__).resolve().parents[2]
GREEDY = AskOptions(sampling=Sampling(temperature=0.0), max_tokens=60)
POLL_S = 0.05
PATIENCE_S = 120.0
"""For what comes by itself: a dozen processes may come and go beside other tests on two cores."""
END_S = 30.0
"""For what is to be gone at once: a process that stays is noticed, one that waits for its turn is not taken for it."""
NODE, WORKER, ENGINE, SUPERVISOR = (
    "full_node",
    "local_worker.cli",
    "local_worker.engine",
    "embedded.supervisor",
)


def until(ready: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for something that comes by itself."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s:g} s"
        time.sleep(POLL_S)


async def soon(ready: Callable[[], bool], timeout_s: float, what: str) -> None:
    """`until` for coroutines: the event loop goes on meanwhile."""
    async with asyncio.timeout(timeout_s + 5):
        deadline = time.monotonic() + timeout_s
        while not ready():
            assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s:g} s"
            await asyncio.sleep(POLL_S)


@dataclass
class Heard:
    """What a terminal heard of one question."""

    events: list[AskEvent] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def pieces(self) -> int:
        return sum(isinstance(event, TextDelta) for event in self.events)

    @property
    def answer(self) -> Answer:
        (found,) = [event.answer for event in self.events if isinstance(event, Answered)]
        return found

    @property
    def session(self) -> str:
        return next(event.session for event in self.events if isinstance(event, Routed))

    @property
    def takeovers(self) -> list[TookOver]:
        return [event for event in self.events if isinstance(event, TookOver)]


async def ask(
    service: ChatService,
    *texts: str,
    options: AskOptions = GREEDY,
    after: int = 0,
    then: Callable[[Heard], None] | None = None,
) -> Heard:
    """Ask, and call ``then`` once when ``after`` pieces of the answer are there.

    The answer is pulled: while ``then`` runs, no further token is asked for, so what it does happens mid-answer.
    """
    heard = Heard()
    async for event in service.ask([ChatMessage("user", text) for text in texts], options):
        heard.events.append(event)
        if then is not None and isinstance(event, TextDelta) and heard.pieces == after:
            then(heard)
    return heard


class Machine:
    """A home and what runs from it."""

    def __init__(
        self,
        home: Path,
        *,
        linger_s: int = 60,
        environment: dict[str, str] | None = None,
        python_path: tuple[str, ...] = (),
    ) -> None:
        self.home = home
        self.linger_s = linger_s
        self.paths = find_paths(home)
        self.embedded = self.paths.embedded
        self._environment = environment or {}
        self.python_path = python_path

    @asynccontextmanager
    async def terminal(self, **settings: object) -> AsyncIterator[ChatService]:
        """A chat service of this process, open."""
        config = Config(linger_s=self.linger_s, **settings)  # type: ignore[arg-type]  # settings by name
        service = ChatService(self.paths, config)
        await service.open(lambda _: None)
        try:
            yield service
        finally:
            await service.aclose()

    def start_terminal(self, *words: str) -> subprocess.Popen[bytes]:
        """A terminal of its own process: ``tests.e2e.terminal WORDS``."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.terminal", *words],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DLLM_", "XDG_"))}
        ours = {"DLLM_HOME": str(self.home), "DLLM_LINGER_S": str(self.linger_s)}
        path = os.pathsep.join(filter(None, (*self.python_path, os.environ.get("PYTHONPATH", ""))))
        return kept | ours | ({"PYTHONPATH": path} if path else {}) | self._environment

    def processes(self) -> dict[int, str]:
        """Process id → command line, of everything that belongs to this home."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                command = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                )
                place = str((folder / "cwd").readlink())
            except OSError:
                continue  # it ended just now
            mentions = str(self.home) in command or place.startswith(str(self.home))
            if command and mentions and int(folder.name) != os.getpid():
                found[int(folder.name)] = command
        return found

    def pids(self, *words: str) -> list[int]:
        """Process ids of those whose command line has all the words."""
        return sorted(
            pid for pid, command in self.processes().items() if all(word in command for word in words)
        )

    def worker_pid(self, name: str) -> int:
        (pid,) = self.pids(WORKER, f"{name} ")
        return pid

    def worker_of(self, provider: str) -> str:
        """Name of the worker that is this provider."""
        for status in self.embedded.glob("worker-*/status.json"):
            if f'"{provider}"' in status.read_text():
                return status.parent.name
        raise AssertionError(f"no worker of this home is {provider}")

    def worker_states(self) -> list[str]:
        """What the embedded network's two workers say of themselves, of those that live."""
        found = []
        for number in (1, 2):
            status = json.loads((self.embedded / f"worker-{number}" / "status.json").read_text())
            alive = status["pid"] in self.pids(WORKER)
            found.append(status["state"] if alive else "dead")
        return found

    def engine_pid(self, name: str) -> int:
        """The engine process of a worker."""
        parent = self.worker_pid(name)
        return next(pid for pid in self.pids(ENGINE) if _parent_of(pid) == parent)

    def kill_everything(self) -> None:
        """What a power cut does."""
        for _ in range(20):  # children may be born while we count
            pids = list(self.processes())
            if not pids:
                return
            for pid in sorted(pids, reverse=True):  # children first: they must not hear of their parents' end
                kill(pid)
            time.sleep(0.02)
        until(lambda: not self.processes(), END_S, "the end of everything")

    def shut_down(self) -> None:
        """End it in good order, as the end of the linger time would; then insist."""
        for pid in self.pids(SUPERVISOR):
            kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 15
        while self.processes() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        self.kill_everything()

    def logs(self) -> str:
        """The ends of all logs, for a failing test's message."""
        found = [*self.embedded.glob("logs/*"), *self.embedded.glob("worker-*/worker.log")]
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in found)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _parent_of(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


@contextmanager
def running_machine(home: Path, **options: object) -> Iterator[Machine]:
    """A machine of which nothing is left afterwards."""
    machine = Machine(home, **options)  # type: ignore[arg-type]  # options by name
    try:
        yield machine
    finally:
        machine.shut_down()
