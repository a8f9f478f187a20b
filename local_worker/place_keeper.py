"""What a worker that is placed by the network knows and says of its place: read from the chain, told to the chain."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from dllm_protocol.actions import Heartbeat, SetHolding, WithdrawHolding
from dllm_protocol.endpoints import write_relay_endpoint
from dllm_protocol.errors import DllmError
from dllm_protocol.holder_book import HolderBook
from dllm_protocol.model_manifest import Manifest
from dllm_protocol.placement.listed import usual_speed
from dllm_protocol.placement.plan import Why
from dllm_protocol.placement.rule import DEFAULT_RULES
from dllm_protocol.placement.slices import Slice as Layers
from dllm_protocol.ranked_book import least_slice
from dllm_protocol.relay import key_address
from local_worker.capacity import NoRoom
from local_worker.card_memory import free_card_bytes
from local_worker.chain import Chain
from local_worker.keys import WorkerKeys
from local_worker.measuring import RoomFor, layers_that_fit
from local_worker.memory import free_memory
from local_worker.placing import Act, EpochView, Own, Step
from local_worker.registration import Registration
from local_worker.relays import own_endpoints
from local_worker.slice_models import SharedPackage
from local_worker.slice_service import SliceOptions, SliceSetting

_log = logging.getLogger(__name__)

LOOKS_AN_EPOCH: Final = 4
LEAST_LOOK_S: Final = 0.25
MOST_LOOK_S: Final = 15.0
UNKNOWN_SPEED: Final = 1000
"""Said before anything is measured, where nobody else says anything."""


class PlaceKeeper:
    """One provider's place: where it serves, what is coming, and what the chain was told of it."""

    def __init__(
        self,
        options: SliceOptions,
        setting: SliceSetting,
        package: SharedPackage,
        keys: WorkerKeys,
        chain: Chain,
    ) -> None:
        """Prepare; `begin` reads package and chain."""
        self._options = options
        self._setting = setting
        self._package = package
        self._keys = keys
        self._chain = chain
        self.registration = Registration(chain, keys, setting.owner)
        self._own: Own | None = None
        self._manifest: Manifest | None = None
        self._said: SetHolding | None = None
        self._epoch = 0
        self._said_epoch = 0
        self._fetch_from_epoch = 0
        """After a fetch that failed, not before this epoch again."""
        self._stale_looks = 0
        """Looks one after the other at a book that is out of date."""

    async def begin(self) -> None:
        """Measure memory, and go on where the chain says that this provider was.

        Raises:
            NoRoom: not even the smallest slice fits.
            As `SharedPackage.header`.
        """
        _, pieces, self._manifest = await self._package.found(self._chain)
        header = await self._package.header(self._chain)
        engine, free = self._setting.engine, free_memory()
        room = RoomFor(engine.sequences, engine.context_rows)
        on_cards = 0 if engine.gpu_layers == 0 else await free_card_bytes()
        fitting = layers_that_fit(pieces, header, free, room, card_bytes=on_cards)
        memory = min(fitting, self._options.most_layers or fitting)
        if memory < least_slice(pieces.layers):
            raise NoRoom(
                f"{memory} layers of {pieces.name} fit, the smallest slice has {least_slice(pieces.layers)}; "
                f"{free.free_bytes >> 20} MiB are free ({free.bound})",
                hint="free some memory, or serve a smaller model",
            )
        known = await self._chain.holding(self._manifest.name, self.registration.provider)
        speed = known.speed_layer_rows_s if known is not None else 0
        if not speed:
            speed = usual_speed(await self._book()) or UNKNOWN_SPEED
        self._own = Own(self.registration.provider, self.registration.owner, speed, memory)
        if known is not None and 0 < known.end_layer - known.first_layer <= memory:
            # This provider was there, or on its way, when the worker ended: others reckon with it.
            await self.say_coming(Layers(known.first_layer, known.end_layer))
            self._said_epoch = self._epoch

    @property
    def look_every_s(self) -> float:
        """Seconds between two looks at the book: some in each epoch."""
        epoch_s = self._chain.params.epoch_ms / 1000
        return min(MOST_LOOK_S, max(LEAST_LOOK_S, epoch_s / LOOKS_AN_EPOCH))

    @property
    def serving(self) -> Layers | None:
        """What is offered now."""
        return self._known()[0].serving

    async def step(self) -> Step:
        """What to do now.

        Raises:
            DllmError: the chain cannot be asked, or its book cannot be decided over.
        """
        own, manifest = self._known()
        self._epoch = await self._chain_epoch()
        if own.coming is not None and own.ready_epoch is None:
            # It was coming when the worker started.
            return Step(Act.FETCH, own.coming, Why.STAY)
        view = EpochView(await self._book(), epoch=self._epoch, layers=manifest.layers)
        self._epoch = view.epoch
        await self._have_it_frozen(view)
        step = view.step_of(own)
        if step.act is Act.FETCH and self._epoch < self._fetch_from_epoch:
            return Step(Act.STAY, own.serving)
        return step

    async def _have_it_frozen(self, view: EpochView) -> None:
        """Send a heartbeat where the newest book no longer shows what stands and no transaction has it frozen anew: on
        a chain that nobody uses now, a gap would stay unseen. The first in the epoch's order does so at once, each
        further one a look later.
        """
        own, manifest = self._known()
        head = await self._chain.book_head(manifest.name)
        if own.serving is None or head is None or not head.stale or head.epoch >= self._epoch:
            self._stale_looks = 0
            return
        self._stale_looks += 1
        if self._stale_looks > view.rank(own.provider):
            await self._chain.send((Heartbeat(own.provider),))
            self._stale_looks = 0

    async def say_coming(self, layers: Layers) -> None:
        """Tell the chain which slice is to be held."""
        own, _ = self._known()
        self._own = replace(own, coming=layers, ready_epoch=None)
        await self._say(layers)

    def fetched(self) -> None:
        """All of what is coming lies on the disk."""
        self._own = replace(self._known()[0], ready_epoch=self._epoch)

    def loaded(self, layers: Layers, speed_layer_rows_s: int) -> None:
        """A slice runs, this fast; it is what is served from now on."""
        own, _ = self._known()
        self._own = replace(
            own, serving=layers, coming=None, ready_epoch=None, speed_layer_rows_s=speed_layer_rows_s
        )

    def forget_coming(self) -> None:
        """What came is of no use; for some epochs no other is fetched."""
        self._own = replace(self._known()[0], coming=None, ready_epoch=None)
        self._fetch_from_epoch = self._epoch + DEFAULT_RULES.rest_epochs

    async def give_up(self) -> None:
        """Tell the chain that the old slice stays; for some epochs no other is fetched."""
        self.forget_coming()
        await self.repeat()

    async def repeat(self) -> None:
        """Tell the chain what is served or comes, if it was told something else, or told long ago by one that serves
        nothing and so sends no heartbeats."""
        own, _ = self._known()
        self._epoch = max(self._epoch, await self._chain_epoch())
        await self._say(own.coming or own.serving)

    async def say_waiting(self) -> None:
        """Tell the chain, once, that there is memory and no slice for it yet."""
        await self._say(None)

    async def warn_if_last(self) -> None:
        """Say in the log if layers are left without a holder by this worker's end; it ends all the same."""
        try:
            own, manifest = self._known()
            view = EpochView(await self._book(), epoch=await self._chain_epoch(), layers=manifest.layers)
        except DllmError as error:
            _log.warning("who else holds these layers cannot be told: %s", error.message)
            return
        if not view.may_leave(own):
            _log.warning("this worker may be the last that holds some of its layers")

    async def withdraw(self) -> None:
        """Take back what was said.

        Raises:
            DllmError: the chain cannot be told.
        """
        if self._said is not None:
            await self._chain.send((WithdrawHolding(self._said.provider, self._said.model),))
            self._said = None

    async def _say(self, layers: Layers | None) -> None:
        own, manifest = self._known()
        first, end = (layers.first_layer, layers.end_layer) if layers is not None else (0, 0)
        holding = SetHolding(
            own.provider, manifest.name, own.speed_layer_rows_s, own.memory_layers, first, end
        )
        beat_epochs = max(1, self._chain.params.offer_life_epochs // 2)
        is_fresh = own.serving is not None or self._epoch - self._said_epoch < beat_epochs
        if holding == self._said and is_fresh:
            return
        await self.registration.hold(
            holding,
            manifest,
            await self._endpoints(),
            self._options.offer,
            may_register_model=self._setting.may_register_model,
        )
        self._said, self._said_epoch = holding, self._epoch

    async def _endpoints(self) -> tuple[str, ...]:
        """Those on chain, where this provider is known: its slice says when they change. Else where it will listen."""
        known = await self._chain.provider(self.registration.provider)
        if known is not None:
            return known.endpoints
        options, relays = self._options, self._setting.relays
        direct = options.announced
        if not direct and options.host is not None:
            direct = own_endpoints(options.host, options.port, has_relays=bool(relays))
        address = key_address(self._keys.service.public_key)
        return direct + tuple(write_relay_endpoint(relay.url, relay.name, address) for relay in relays)

    async def _book(self) -> HolderBook:
        manifest = self._manifest
        assert manifest is not None, "begin() comes first"
        return await self._chain.holder_book(manifest.name) or HolderBook(manifest.name, 0, ())

    async def _chain_epoch(self) -> int:
        passed_ms = await self._chain.time_ms() - self._chain.genesis_time_ms
        return max(0, passed_ms) // self._chain.params.epoch_ms

    def _known(self) -> tuple[Own, Manifest]:
        assert self._own is not None and self._manifest is not None, "begin() comes first"
        return self._own, self._manifest
