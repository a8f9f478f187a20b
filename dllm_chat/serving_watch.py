"""Waiting for a worker that was started: until it is so far, or has ended, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from dllm_chat.serving_process import LINE_CHARACTERS_MAX, Fate, WorkerProcess
from dllm_chat.session.events import WorkerStatus
from dllm_protocol.errors import DllmError, TimedOut

UP_TIMEOUT_S = 60.0
LOAD_TIMEOUT_S = 3600.0
"""A model of many gigabytes is read whole, and hashed."""
SETTLED_S = 1.0
"""A worker that has loaded and is refused all the same says so within that time."""
PROBLEM_CHARACTERS_MAX = LINE_CHARACTERS_MAX
"""Of a worker's problem, as it is shown: as much as of the same line where the worker printed it."""
_LOADED: Final = ("registering", "serving")
_POLL_S = 0.1


class WorkerFailed(DllmError):
    """The worker could not be prepared or started, or ended by itself."""

    code = "E_WORKER"
    exit_code = 3


class WorkerWatch:
    """Looks at one home's worker, again and again."""

    def __init__(
        self,
        process: WorkerProcess | None,
        status: Callable[[], WorkerStatus],
        note_failure: Callable[[str], None],
        log: Path,
    ) -> None:
        """Prepare.

        Args:
            process: the worker that we started; None where somebody else did.
            status: what it says of itself.
            note_failure: keeps why it ended, where it could not say so itself.
            log: where it wrote more.
        """
        self.process = process
        self._status = status
        self._note_failure = note_failure
        self._log = log

    async def until_up(self) -> None:
        """Wait until it speaks for itself.

        Raises:
            WorkerFailed, TimedOut
        """
        await self.until((), UP_TIMEOUT_S)

    async def until_loaded(self) -> None:
        """Wait until its model has loaded and nothing speaks against serving it but what it waits for: its owner.

        Raises:
            WorkerFailed, TimedOut
        """
        await self.until(_LOADED, LOAD_TIMEOUT_S)
        await asyncio.sleep(SETTLED_S)
        await self.until(_LOADED, LOAD_TIMEOUT_S)

    async def until(self, states: Collection[str], timeout_s: float) -> WorkerStatus:
        """Wait until it runs and is in one of these states; in any, where none is named.

        Raises:
            WorkerFailed: it ended, and why.
            TimedOut: it lives, and is not so far.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            found = self._status()
            if found.state == "failed":
                raise await self._failure(found, Fate.FAILED)
            if found.running and (not states or found.state in states):
                return found
            if not found.running and (fate := await self._fate()) is not Fate.LIVES:
                raise await self._failure(found, fate)
            if loop.time() > deadline:
                raise TimedOut(f"the worker is still {found.state} after {timeout_s:g} s")
            await asyncio.sleep(_POLL_S)

    async def _fate(self) -> Fate:
        return await self.process.fate() if self.process is not None else Fate.STOPPED

    async def _failure(self, seen: WorkerStatus, fate: Fate) -> WorkerFailed:
        """Why it ended; that stays in its status, and nobody starts it again by itself."""
        said: list[str] = []
        if self.process is not None:
            await self.process.give_up()
            said = self.process.last_words()
        # What it wrote last may have come after we looked, and what we saw may be gone with a second try.
        last = self._status()
        problem = next((one.problem for one in (seen, last) if one.state == "failed"), "")
        if not problem and fate is Fate.STOPPED:
            return WorkerFailed("the worker was stopped before it served")
        problem = problem or (said[-1] if said else "the worker ended without a word")
        if last.state != "failed":
            self._note_failure(problem)
        return WorkerFailed(problem, hint=_advice(said, problem) or f"see {self._log}")


def _advice(said: Sequence[str], problem: str) -> str:
    """The line under the problem: there a program of ours says what to do."""
    under = [below for line, below in pairwise(said) if line == problem != below]
    return under[-1] if under else ""
