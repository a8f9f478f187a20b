"""Keeps one engine running: starts it, notices its end, starts it again after a pause that grows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from local_worker.engine.client import Engine
from local_worker.engine.errors import DecodeFailed, EngineGone, ModelRefused
from local_worker.engine.interface import ServingEngine
from local_worker.engine.messages import EngineInfo
from local_worker.remote_engine.engine import RemoteEngine
from local_worker.remote_engine.options import RemoteServer
from local_worker.self_test import SelfTestFailed

_log = logging.getLogger(__name__)

REMOTE_CONTEXT_ROWS, REMOTE_SEQUENCES = 4096, 4
"""Where a server computes, and nothing was said of its memory."""
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
"""An engine that lived this long is not to blame for the ends before it."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What an engine is started with."""

    model_path: Path
    log_path: Path
    context_rows: int | None
    """Rows a sequence can hold; None: as memory allows."""
    sequences: int | None
    """How many may be open at once; None: as memory allows."""
    threads: int | None = None
    gpu_layers: int | None = None
    """Layers on graphics cards; None: all that fit."""
    memory_share: int = 1
    """Among how many engines that start together free memory is divided."""
    remote: RemoteServer | None = None
    """Who computes the rows; None: llama.cpp here."""


class EngineHost:
    """The engine of a worker, through all its lives."""

    def __init__(self, options: EngineOptions) -> None:
        """Prepare; `start` starts."""
        self._options = options
        self.on_new_engine: Callable[[], None] = _nothing
        """Called when an engine has replaced one that ended: what the old one held is gone."""
        self.check: Callable[[ServingEngine], Awaitable[None]] = _no_check
        """Awaited with an engine that is to replace one that ended, before anybody is given it."""
        self._engine: ServingEngine | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.restarts = 0
        self.refused: ModelRefused | SelfTestFailed | None = None
        """Why no engine can be had any more: the model file changed under it, or it computes wrongly."""

    async def start(self) -> ServingEngine:
        """Start the first engine.

        Raises:
            ModelRefused, EngineGone: there is no engine, and none will be tried again.
        """
        self._engine = await self._launch()
        self._keeper = asyncio.create_task(self._keep())
        return self._engine

    @property
    def alive(self) -> bool:
        """Whether an engine answers now."""
        return self._engine is not None and self._engine.alive

    @property
    def info(self) -> EngineInfo:
        """What the engine says of its model; the same for all of them, and known while the next one starts.

        Raises:
            EngineGone: none was ever started.
        """
        if self._engine is None:
            raise EngineGone("no engine was started yet")
        return self._engine.info

    def current(self) -> ServingEngine:
        """The engine that runs now.

        Raises:
            EngineGone: it ended, and the next one has not loaded yet.
        """
        if self._engine is None or not self._engine.alive:
            raise EngineGone("the engine has ended and is being started again", hint="try again in a moment")
        return self._engine

    async def wait_refused(self) -> None:
        """Wait for ever, or until no engine can be had any more.

        Raises:
            ModelRefused: the model file changed under the worker.
            SelfTestFailed: what the engine computes is not to be offered any more.
        """
        if self._keeper is not None:
            await asyncio.shield(self._keeper)
        if self.refused is not None:
            raise self.refused

    async def close(self) -> None:
        """End the engine for good."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._engine is not None:
            await self._engine.close()

    async def _launch(self) -> ServingEngine:
        options = self._options
        if options.remote is not None:
            return await RemoteEngine.start(
                options.model_path,
                options.remote,
                context_rows=options.context_rows or REMOTE_CONTEXT_ROWS,
                sequences=options.sequences or REMOTE_SEQUENCES,
                log_path=options.log_path,
            )
        # The next engine holds what the first one could: sessions were promised it.
        told = self._engine.info if self._engine is not None else None
        return await Engine.start(
            options.model_path,
            context_rows=told.context_rows if told else options.context_rows,
            sequences=told.sequences if told else options.sequences,
            threads=options.threads,
            log_path=options.log_path,
            gpu_layers=options.gpu_layers,
            memory_share=options.memory_share,
        )

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while self._engine is not None:
            began = loop.time()
            reason = await self._engine.wait_closed()
            if loop.time() - began > STEADY_S:
                pause_s = FIRST_PAUSE_S
            _log.warning("the engine ended (%s); the next one starts in %.2f s", reason, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            try:
                engine = await self._launch()
                try:
                    await self.check(engine)
                except BaseException:
                    await engine.close()
                    raise
                self._engine = engine
            except (EngineGone, DecodeFailed) as error:
                _log.warning("the engine did not start: %s", error.message)
                continue
            except (ModelRefused, SelfTestFailed) as error:
                _log.error("the model is refused now: %s", error.message)
                self.refused = error
                return
            self.restarts += 1
            self.on_new_engine()


async def _no_check(_engine: ServingEngine) -> None:
    """What is asked of an engine while nobody knows how to judge it."""


def _nothing() -> None:
    """What happens on a new engine while nobody cares."""
