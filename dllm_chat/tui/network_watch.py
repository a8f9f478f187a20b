"""Opens the door after the first paint and keeps what the screen knows of the network young."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dllm_chat.sanitize import clean_line
from dllm_chat.tui.view import NetworkView, Phase, failure_of
from dllm_protocol.errors import DllmError

if TYPE_CHECKING:
    from dllm_chat.session.service_door import ChatDoor

POLL_S = 3.0


class NetworkWatch:
    """Owns the door: opens it, asks it how things are, lets go of it."""

    def __init__(
        self,
        door_factory: Callable[[], ChatDoor],
        changed: Callable[[NetworkView], None],
        worker_failed: Callable[[str], None],
    ) -> None:
        """Prepare; nothing heavy is imported before `open`.

        Args:
            door_factory: imports and makes the door; runs in a thread.
            changed: told each new view, on the event loop.
            worker_failed: told why a worker that was switched on does not serve, once.
        """
        self._door_factory = door_factory
        self._changed = changed
        self._worker_failed = worker_failed
        self._told: str | None = None
        """The worker's problem that the person knows of; None while nobody has looked."""
        self._contributing = 0
        self._polling = False
        self._opened = asyncio.Event()
        self.view = NetworkView()
        self.door: ChatDoor | None = None
        self.wanted_model = ""
        """What the person chose; empty: the network's default."""

    async def open(self) -> bool:
        """Find or start the network. True when it stands; otherwise the view says why not."""
        try:
            return await self._open()
        finally:
            self._opened.set()

    async def stands(self) -> bool:
        """Whether the network stands, once it is known: waits while it starts."""
        await self._opened.wait()
        return self.view.phase is Phase.OPEN

    async def _open(self) -> bool:
        self._put(phase=Phase.STARTING, progress="loading", failure=None)
        try:
            if self.door is None:
                self.door = await asyncio.to_thread(self._door_factory)
            await self.door.open(lambda text: self._put(progress=clean_line(text)))
            default = await self.door.default_model()
        except DllmError as error:
            failure = failure_of(error)
            self._put(
                phase=Phase.FAILED,
                progress=f"{failure.code} · your next question tries again",
                failure=failure,
            )
            return False
        self._put(
            phase=Phase.OPEN,
            progress="",
            badge=self.door.badge,
            model=self.wanted_model or default,
            freshness=self.door.freshness(),
        )
        await self.poll()
        return True

    async def poll(self) -> None:
        """Verify the tip, prove the balance, ask the worker. A failure shows as freshness, not as an error."""
        door = self.door
        if door is None or self.view.phase is not Phase.OPEN or self._polling:
            return
        self._polling = True
        try:
            self._put(
                freshness=await door.refresh(),
                balance=await door.balance(),
                worker=await door.worker_status(),
                model=self.wanted_model or await door.default_model(),
            )
            self._tell_failure()
        except DllmError:
            # The light node keeps what went wrong; `problem` shows it in the status line.
            self._put(freshness=door.freshness())
        finally:
            self._polling = False

    async def contribute(self, on: bool, model_file: Path | None = None) -> None:
        """Start or stop serving.

        Raises:
            DllmError: the worker could not be started or stopped.
        """
        if self.door is None:
            return
        self._contributing += 1
        self._told = ""
        try:
            await (self.door.worker_on(model_file) if on else self.door.worker_off())
        except DllmError as error:
            # Our caller says it.
            self._told = error.message
            raise
        finally:
            self._contributing -= 1
            self._put(worker=await self.door.worker_status())

    def _tell_failure(self) -> None:
        """Say what the status line has no room for, where that is news: not what failed before this program began."""
        worker = self.view.worker
        problem = worker.problem if worker is not None and worker.state == "failed" else ""
        if self._told is None:
            self._told = problem
        elif problem and problem != self._told and not self._contributing:
            self._told = problem
            self._worker_failed(problem)

    def choose_model(self, name: str) -> None:
        """Ask this model from now on."""
        self.wanted_model = name
        self._put(model=name)

    async def aclose(self) -> None:
        """Let go of the network."""
        if self.door is not None:
            await self.door.aclose()

    def _put(self, **changes: object) -> None:
        view = replace(self.view, **changes)  # type: ignore[arg-type]  # replace checks the names itself
        if view != self.view:
            self.view = view
            self._changed(view)
