"""A slice that finds its own place: `placing` says where, and this takes the provider there, epoch by epoch.

It stands in the worker where a `Slice` does. What it says and decides is `PlaceKeeper`'s; here slices are begun and
ended. A move ends the old slice before the new one loads: one ledger, one door, and memory for one engine. The rule
lets it go only where others hold what it leaves, and clients whose session ends turn to their standby.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import time
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from dllm_protocol.errors import DllmError
from dllm_protocol.placement.slices import Slice as Layers
from local_worker.chain import Chain, wait_for_chain
from local_worker.keys import WorkerKeys
from local_worker.measuring import measured_speed
from local_worker.place_keeper import PlaceKeeper
from local_worker.placing import Act, Step
from local_worker.slice_models import CHAIN_WAIT_S, MODEL_FOLDER, PackagedLayers, SharedPackage
from local_worker.slice_service import Slice, SliceOptions, SliceSetting
from local_worker.status import RowMeter, SliceStatus

_log = logging.getLogger(__name__)

T = TypeVar("T")
DRAIN_S: Final = 10.0
SETTLE_S: Final = 15.0
"""Longest that claims may take before a slice is left; what is not claimed then is later."""
BUSY_LOOK_S: Final = 0.05


class AutoSlice:
    """A provider whose layers the network chooses."""

    def __init__(
        self,
        home: Path,
        options: SliceOptions,
        setting: SliceSetting,
        package: SharedPackage,
        keys: WorkerKeys,
        chain: Chain,
    ) -> None:
        """``options``: with a port of its own, so that the provider stays where it is when its layers change."""
        self._home = home
        self._options = options
        self._setting = setting
        self._package = package
        self._keys = keys
        self._chain = chain
        self._keeper = PlaceKeeper(options, setting, package, keys, chain)
        self._slice: Slice | None = None
        self._is_offered = False
        self._draining = False
        self.registration = self._keeper.registration
        self.meter = RowMeter()
        self.tasks: list[asyncio.Task[None]] = []
        """What runs as long as the provider serves; an end of one of them is a defect."""

    # -- beginning --------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Find a place, say so on chain, and have its layers loaded and the door open.

        Raises:
            NoRoom: not even the smallest slice fits.
            As `Slice.load`, `Registration.hold` and `PackagedLayers.prepare`.
        """
        await wait_for_chain(self._chain, CHAIN_WAIT_S)
        await self._keeper.begin()
        while True:
            step = await self._keeper.step()
            if step.act is Act.FETCH and step.slice is not None:
                _log.info("layers %s are taken to %s", _named(step.slice), step.why.value)
                await self._keeper.say_coming(step.slice)
                await self._fetch(step.slice)
            elif step.act is Act.SWITCH and step.slice is not None:
                await self._begin(step.slice)
                return
            else:
                if step.act is Act.WAIT:
                    await self._keeper.say_waiting()
                await asyncio.sleep(self._keeper.look_every_s)

    async def offer(self) -> None:
        """Offer what was loaded, and look each epoch whether it should be elsewhere.

        Raises:
            As `Slice.offer`.
        """
        await self._offer()
        self.tasks.append(asyncio.create_task(self._run()))

    async def wait_refused(self) -> None:
        """For ever: what goes wrong with a slice ends `tasks`."""
        await asyncio.Event().wait()

    # -- while it serves --------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._beside(asyncio.sleep(self._keeper.look_every_s))
            try:
                await self._look()
            except DllmError as error:
                # The chain cannot be asked, or refuses: what is served goes on, and the next look is near.
                if self._slice is None:
                    raise
                _log.warning("placement: %s", error.message)

    async def _look(self) -> None:
        if not self._is_offered:
            await self._offer()
        await self._keeper.repeat()
        await self._take(await self._keeper.step())

    async def _take(self, step: Step) -> None:
        if step.act is Act.FETCH and step.slice is not None:
            _log.info("layers %s are fetched to %s", _named(step.slice), step.why.value)
            await self._keeper.say_coming(step.slice)
            try:
                await self._beside(self._fetch(step.slice))
            except DllmError as error:
                _log.warning("layers %s cannot be fetched: %s", _named(step.slice), error.message)
                await self._keeper.give_up()
        elif step.act is Act.SWITCH and step.slice is not None:
            await self._move(step.slice)
        elif step.act is Act.GIVE_UP:
            _log.info("the place does not change: others would be missing what is served here")
            await self._keeper.give_up()
            self._forget_others()

    async def _fetch(self, layers: Layers) -> None:
        """Have all of a slice on the disk; meanwhile the chain is told, again and again, that it comes."""
        fetching = asyncio.create_task(self._model(layers).prepare(self._chain))
        try:
            while not (await asyncio.wait((fetching,), timeout=self._keeper.look_every_s))[0]:
                try:
                    await self._keeper.repeat()
                except DllmError as error:
                    _log.warning("placement: %s", error.message)
            await fetching
        finally:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)
        self._keeper.fetched()

    async def _move(self, layers: Layers) -> None:
        before = self._keeper.serving
        _log.info("layers %s are served from now on", _named(layers))
        await self._end_old()
        try:
            await self._begin(layers)
        except DllmError as error:
            await self._let_go()
            if before is None:
                raise
            _log.warning("layers %s cannot be served: %s", _named(layers), error.message)
            self._keeper.forget_coming()
            await self._go_back(before)
        await self._offer()

    async def _go_back(self, before: Layers) -> None:
        try:
            await self._fetch(before)
            await self._begin(before)
        except DllmError:
            await self._let_go()  # nothing is served: the worker says why and ends
            raise

    async def _begin(self, layers: Layers) -> None:
        """Load a slice and measure it; it is not offered yet."""
        options = replace(self._options, layers=f"{layers.first_layer}:{layers.end_layer}")
        one = Slice(self._home, options, self._setting, self._model(layers), self._keys, self._chain)
        one.meter = self.meter
        self._slice = one
        if self._draining:
            one.drain()
        self._is_offered = False
        await one.load()
        self._keeper.loaded(layers, await measured_speed(one.engine.current(), time.monotonic_ns))

    async def _offer(self) -> None:
        assert self._slice is not None, "load() comes first"
        await self._slice.offer()
        self._is_offered = True
        await self._keeper.repeat()
        self._forget_others()

    async def _end_old(self) -> None:
        """Take the offer back, finish the answers under way, claim, and let go of engine, door and ledger."""
        old = self._slice
        if old is None:
            return
        await old.registration.withdraw()
        old.drain()
        deadline = time.monotonic() + DRAIN_S
        while old.busy and time.monotonic() < deadline:  # noqa: ASYNC110
            # Many sessions end on their own; no single event says that all of them have.
            await asyncio.sleep(BUSY_LOOK_S)
        await old.close_door()
        try:
            async with asyncio.timeout(SETTLE_S):
                await old.farewell()
        except (DllmError, TimeoutError) as error:
            # The vouchers stay in the store: the next slice's settlement claims them.
            _log.warning("a slice was left without settling everything: %s", error or "out of time")
        await self._let_go()

    async def _let_go(self) -> None:
        """End the slice, but not the chain, which the next one asks."""
        if self._slice is not None:
            one = self._slice
            await one.end()
            self._slice = None
            await one.store.close()

    def _model(self, layers: Layers) -> PackagedLayers:
        return PackagedLayers(self._package, f"{layers.first_layer}:{layers.end_layer}", self._folder(layers))

    def _folder(self, layers: Layers) -> Path:
        """Of its own for each slice: while one is served, another one is fetched."""
        return self._home / MODEL_FOLDER / "slices" / f"{layers.first_layer}-{layers.end_layer}"

    def _forget_others(self) -> None:
        """Remove the chunks of slices that are served no more."""
        serving = self._keeper.serving
        kept = self._folder(serving).name if serving is not None else ""
        for folder in (self._home / MODEL_FOLDER / "slices").iterdir():
            if folder.name != kept:
                shutil.rmtree(folder, ignore_errors=True)

    async def _beside(self, work: Coroutine[Any, Any, T]) -> T:
        """Do some work, unless the slice that is served breaks meanwhile.

        Raises:
            Whatever ended the slice, or the work.
        """
        doing = asyncio.create_task(work)
        watched: list[asyncio.Task[None]] = []
        refused: list[asyncio.Task[None]] = []
        if self._slice is not None:
            watched = self._slice.tasks
            refused = [asyncio.create_task(self._slice.wait_refused())]
        try:
            done, _ = await asyncio.wait((doing, *watched, *refused), return_when=asyncio.FIRST_COMPLETED)
            for task in done - {doing}:
                task.result()
            return await doing
        finally:
            for mine in (doing, *refused):
                mine.cancel()
            await asyncio.gather(doing, *refused, return_exceptions=True)

    @property
    def busy(self) -> bool:
        """Whether any session is in the middle of an answer."""
        return self._slice is not None and self._slice.busy

    @property
    def answering(self) -> int:
        """Sessions in the middle of an answer."""
        return self._slice.answering if self._slice is not None else 0

    @property
    def waiting_calls(self) -> int:
        """Calls that the engine has not answered yet."""
        return self._slice.waiting_calls if self._slice is not None else 0

    async def refresh(self, session: bytes) -> None:
        """Prove a connected session's terms again now."""
        if self._slice is not None:
            await self._slice.refresh(session)

    async def status(self) -> SliceStatus:
        """What the slice says of itself; empty between two slices."""
        return await self._slice.status() if self._slice is not None else SliceStatus()

    # -- the end ----------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Begin nothing new, moves included."""
        self._draining = True
        for task in self.tasks:
            task.cancel()
        if self._slice is not None:
            self._slice.drain()

    async def close_door(self) -> None:
        """Say goodbye to every client."""
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self._slice is not None:
            await self._slice.close_door()

    async def farewell(self) -> None:
        """Claim what is owed, and take offer and holding back.

        Raises:
            DllmError: not everything could be settled; the next start goes on with it.
        """
        await self._keeper.warn_if_last()
        if self._slice is not None:
            await self._slice.farewell()
        await self._keeper.withdraw()

    async def end(self) -> None:
        """Let go of everything, whatever state it is in."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self._slice is not None:
            await self._slice.end()

    async def close(self) -> None:
        """Close ledger and chain; after `end`, when the last status was written."""
        if self._slice is not None:
            await self._slice.store.close()
        await self._chain.close()


def with_port(options: SliceOptions) -> SliceOptions:
    """The same with a port that is free now, where any would do: it stays while layers change."""
    if options.port or options.host is None:
        return options
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((options.host, 0))
        return replace(options, port=probe.getsockname()[1])


def _named(layers: Layers) -> str:
    return f"{layers.first_layer}:{layers.end_layer}"
