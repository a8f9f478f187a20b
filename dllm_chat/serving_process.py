"""A worker's process as whoever started it sees it: on its own, or a child of the embedded network's supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import subprocess
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dllm_chat.embedded.wire import SupervisorLost
from dllm_chat.paths import make_private_folder
from dllm_chat.sanitize import clean_line

if TYPE_CHECKING:
    from dllm_chat.embedded.door import EmbeddedLease

GIVE_UP_TIMEOUT_S = 5.0
LOCK_FILE = "lock"
"""In a worker's home, held by one that runs; see `dllm-worker`."""
LINE_CHARACTERS_MAX = 400
_POLL_S = 0.05
_TAIL_BYTES = 4000


class Fate(Enum):
    """What has become of it."""

    LIVES = "lives"
    STOPPED = "stopped"
    """It was told to."""
    FAILED = "failed"


class WorkerProcess(Protocol):
    """A worker that we started, or had started."""

    async def start(self) -> None:
        """Start it; returns before it has loaded anything."""
        ...

    async def fate(self) -> Fate:
        """Whether it lives, or how it ended."""
        ...

    async def give_up(self) -> None:
        """See to it that it neither runs nor is started again."""
        ...

    def last_words(self) -> list[str]:
        """What it printed since it was started, line by line; the end of it where that is much."""
        ...


class OwnProcess:
    """A worker that outlives this program."""

    def __init__(self, command: Sequence[str], logs: Path) -> None:
        """``logs``: the folder for what it prints."""
        self._command = command
        self._out = logs / "worker.out"
        self._out_from = 0
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """See `WorkerProcess`."""
        make_private_folder(self._out.parent)
        with self._out.open("ab") as out:
            self._out_from = out.tell()
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - not waited for; our own module, no shell
                self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    async def fate(self) -> Fate:
        """See `WorkerProcess`."""
        code = self._process.poll() if self._process is not None else 0
        if code is None:
            return Fate.LIVES
        return Fate.FAILED if code else Fate.STOPPED

    async def give_up(self) -> None:
        """See `WorkerProcess`."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GIVE_UP_TIMEOUT_S):
                while process.poll() is None:  # noqa: ASYNC110 - a process that is nobody's task has no event
                    await asyncio.sleep(_POLL_S)

    def last_words(self) -> list[str]:
        """See `WorkerProcess`."""
        return _lines(self._out, self._out_from)


class SupervisedProcess:
    """A worker on the embedded network, which starts it again when it dies, until it is told to stop."""

    def __init__(self, lease: EmbeddedLease, order: dict[str, Any]) -> None:
        """``order``: whose worker it is and what it serves, as the supervisor takes it."""
        self._lease = lease
        self._order = order
        self._name = lease.worker_home.name
        self._out = lease.home / "logs" / f"{self._name}.out"
        self._out_from = 0

    async def start(self) -> None:
        """See `WorkerProcess`."""
        # One that failed may be waiting for its next try.
        await self.give_up()
        with contextlib.suppress(OSError):
            self._out_from = self._out.stat().st_size
        await self._lease.request({"op": "worker_on"} | self._order)

    async def fate(self) -> Fate:
        """See `WorkerProcess`."""
        workers = (await self._lease.request({"op": "status"}))["status"]["workers"]
        if self._name not in workers:
            return Fate.STOPPED
        return Fate.LIVES if workers[self._name] else Fate.FAILED

    async def give_up(self) -> None:
        """See `WorkerProcess`."""
        with contextlib.suppress(SupervisorLost):  # then nothing runs there any more
            await self._lease.request({"op": "worker_off"})

    def last_words(self) -> list[str]:
        """See `WorkerProcess`."""
        return _lines(self._out, self._out_from)


def runs(home: Path, pid: int) -> bool:
    """Whether that process is a home's worker: after a reboot its number may be somebody else's, but not its lock."""
    try:
        descriptor = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _alive(pid)
    finally:
        os.close(descriptor)
    return False


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _lines(file: Path, since: int) -> list[str]:
    """The end of a log, without empty lines; from its beginning where it was begun anew meanwhile."""
    try:
        with file.open("rb") as out:
            size = out.seek(0, 2)
            out.seek(max(since if since <= size else 0, size - _TAIL_BYTES))
            said = out.read(_TAIL_BYTES).decode(errors="replace")
    except OSError:
        return []
    return [clean_line(line, LINE_CHARACTERS_MAX) for line in said.splitlines() if line.strip()]
