"""One child process of the supervisor: started, watched, started again when it dies, and never orphaned."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from dllm_chat.embedded.wire import EmbeddedFailed

STOP_TIMEOUT_S = 6.0
KILL_TIMEOUT_S = 2.0
RESTART_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Pauses before the first, second, … restart; after the last one the child is given up."""
STABLE_S = 30.0
"""A child that lived this long starts counting anew."""
_LOG_TAIL_BYTES = 2000
_PR_SET_PDEATHSIG = 1


class Child:
    """A child process with a lifeline: its stdin. When the supervisor goes, in whatever way, the pipe closes."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        """Prepare; `start` starts it.

        Args:
            command: program and arguments.
            log: where its stdout and stderr go.
        """
        self.name = name
        self.command = list(command)
        self._log = log
        self._log_from = 0
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False
        self.restart_pauses_s: tuple[float, ...] = RESTART_PAUSES_S
        self.stop_timeout_s = STOP_TIMEOUT_S
        self.failed = ""
        """Why it was given up; empty while there is hope."""

    @property
    def running(self) -> bool:
        """Whether the process lives now."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Process id of the one that lives or lived last; 0 before the first."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start it and watch it."""
        self._stopping = False
        self.failed = ""
        await self._spawn()
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End it: lifeline first, then SIGTERM, then SIGKILL."""
        self._stopping = True
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        for timeout_s, signal_number in (
            (self.stop_timeout_s, signal.SIGTERM),
            (KILL_TIMEOUT_S, signal.SIGKILL),
        ):
            try:
                async with asyncio.timeout(timeout_s):
                    await process.wait()
                    return
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal_number)
        await process.wait()

    async def kill(self) -> None:
        """End it as a power cut does, with all that it started in its process group; returns when it is gone."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
        await process.wait()

    def log_tail(self) -> str:
        """The end of what it printed since it was started last, for a message."""
        try:
            with self._log.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_from, end - _LOG_TAIL_BYTES))
                return log.read(_LOG_TAIL_BYTES).decode(errors="replace").strip()
        except OSError:
            return ""

    async def _spawn(self) -> None:
        with self._log.open("ab") as log:
            self._log_from = log.tell()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self.command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=_die_with_parent if sys.platform == "linux" else None,
                )
            except OSError as error:
                raise EmbeddedFailed(f"cannot start {self.name}: {error}") from error

    async def _watch(self) -> None:
        """Start it again when it dies, more slowly each time."""
        clock = asyncio.get_running_loop()
        deaths = 0
        while not self._stopping and self._process is not None:
            born = clock.time()
            code = await self._process.wait()
            deaths = 1 if clock.time() - born > STABLE_S else deaths + 1
            if deaths > len(self.restart_pauses_s):
                often = f" {deaths} times, last" if deaths > 1 else ""
                self.failed = f"{self.name} ended{often} with code {code}"
                return
            await asyncio.sleep(self.restart_pauses_s[deaths - 1])
            try:
                await self._spawn()
            except EmbeddedFailed as error:
                self.failed = error.message
                return


def _die_with_parent() -> None:
    """Ask Linux to end this process when its parent dies, even by SIGKILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:
        os._exit(1)
