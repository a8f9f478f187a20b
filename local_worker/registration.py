"""The worker on chain: its model, its provider, its offer, and the heartbeat that keeps the offer alive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from dllm_protocol.actions import (
    Heartbeat,
    RegisterModel,
    RegisterProvider,
    SetHolding,
    SetOffer,
    UpdateProvider,
    WithdrawOffer,
)
from dllm_protocol.address import provider_id_of
from dllm_protocol.encoding import Record
from dllm_protocol.errors import DllmError
from dllm_protocol.model_manifest import Manifest
from dllm_protocol.pricing import RowPrices, part_of
from dllm_protocol.records import Provider
from dllm_protocol.refusals import AlreadyExists
from local_worker.chain import Chain
from local_worker.errors import ModelNotRegistered, NotRegistered
from local_worker.keys import WorkerKeys

_log = logging.getLogger(__name__)

OWNER_WAIT_S = 60.0
OWNER_POLL_S = 1.0
BEATS_PER_LIFE = 3
ANNOUNCE_TRIES = 5
ANNOUNCE_PAUSE_S = 0.5
SEEN_TRIES = 5
"""Epochs in which a new offer looks whether a book has it; from then on heartbeats do."""
LEAST_BEAT_S = 1.0
RETRY_BEAT_S = 5.0


@dataclass(frozen=True, slots=True)
class OfferTerms:
    """What the worker offers."""

    prices: RowPrices | None = None
    """The ask for the slice; None: half of what its layers' part of the reserve allows."""
    capacity_sessions: int = 16
    region: str = ""
    bond_udllm: int = 0
    """At least the chain's minimum is bonded where owner and operator are one."""


class Registration:
    """One provider of one owner, offering one slice of one model."""

    def __init__(self, chain: Chain, keys: WorkerKeys, owner: bytes | None) -> None:
        """``owner``: 20 bytes, or None where the operator owns the provider itself."""
        self._chain = chain
        self._keys = keys
        self.owner = owner or keys.operator_address
        self.provider = provider_id_of(self.owner, keys.operator_address)
        self._model = ""

    async def announce(
        self,
        manifest: Manifest,
        endpoints: Sequence[str],
        terms: OfferTerms,
        *,
        may_register_model: bool,
        layers: tuple[int, int] | None = None,
    ) -> None:
        """Bring the chain's records in line with what this worker serves, in one transaction.

        Another worker may register the same model at the same moment; then the records are read again.

        Args:
            layers: the slice, first layer and the one behind the last; None: all of the model's.

        Raises:
            ModelNotRegistered, NotRegistered: somebody with more say has to act first.
            TransactionRefused: the chain's reason.
        """
        offer = self._offer(manifest, terms, layers)
        await self._send(offer, manifest, endpoints, terms, may_register_model)
        self._model = manifest.name

    async def hold(
        self,
        holding: SetHolding,
        manifest: Manifest,
        endpoints: Sequence[str],
        terms: OfferTerms,
        *,
        may_register_model: bool,
    ) -> None:
        """Say what this worker can hold, and which slice it serves or will; its records first, as `announce`.

        Raises:
            As `announce`.
        """
        await self._send(holding, manifest, endpoints, terms, may_register_model)

    async def _send(
        self,
        action: Record,
        manifest: Manifest,
        endpoints: Sequence[str],
        terms: OfferTerms,
        may_register_model: bool,
    ) -> None:
        for left in reversed(range(ANNOUNCE_TRIES)):
            try:
                actions = await self._records(manifest, endpoints, terms, may_register_model)
                await self._chain.send((*actions, action))
                return
            except AlreadyExists:
                if not left:
                    raise
                # The other's transaction may wait for its block still: what it did is proved in a moment.
                await asyncio.sleep(ANNOUNCE_PAUSE_S)

    async def _records(
        self, manifest: Manifest, endpoints: Sequence[str], terms: OfferTerms, may_register_model: bool
    ) -> list[Record]:
        actions: list[Record] = []
        record = await self._chain.model(manifest.name)
        if record is None:
            if not may_register_model:
                raise ModelNotRegistered(
                    f"the registry has no model {manifest.name}",
                    hint="serve a registered model, or start with --register-model (it takes a bond)",
                )
            actions.append(RegisterModel(manifest))
        return actions + await self._provider_actions(tuple(endpoints), terms)

    def _offer(self, manifest: Manifest, terms: OfferTerms, layers: tuple[int, int] | None) -> SetOffer:
        first, end = layers or (0, manifest.layers)
        prices = terms.prices or ask_for_layers(manifest, end - first)
        return SetOffer(self.provider, manifest.name, first, end, prices, terms.capacity_sessions)

    async def _provider_actions(self, endpoints: tuple[str, ...], terms: OfferTerms) -> list[Record]:
        known = await self._chain.provider(self.provider)
        service, sealing = self._keys.service.public_key, self._keys.sealing.public_key
        if known is None and self.owner == self._keys.operator_address:
            bond_udllm = max(terms.bond_udllm, self._chain.params.provider_bond_udllm)
            operator = self._keys.operator_address
            return [RegisterProvider(operator, service, sealing, endpoints, terms.region, bond_udllm)]
        if known is None:
            known = await self._wait_for_owner()
        if (known.service_key, known.sealing_key, known.endpoints) == (service, sealing, endpoints):
            return []
        return [UpdateProvider(self.provider, service, sealing, endpoints)]

    async def _wait_for_owner(self) -> Provider:
        """The owner's registration may be on its way: it was asked to send it as this worker was started."""
        for _ in range(int(OWNER_WAIT_S / OWNER_POLL_S)):
            await asyncio.sleep(OWNER_POLL_S)
            known = await self._chain.provider(self.provider)
            if known is not None:
                return known
        raise NotRegistered(
            f"owner {self.owner.hex()} has no provider with operator {self._keys.operator_address.hex()}",
            hint="register it from the owner's wallet, with this worker's operator, service and sealing keys",
        )

    @property
    def beat_s(self) -> float:
        """Seconds between heartbeats: a few in each life of an offer."""
        params = self._chain.params
        return max(LEAST_BEAT_S, params.offer_life_epochs * params.epoch_ms / 1000 / BEATS_PER_LIFE)

    async def be_seen(self) -> None:
        """See to it that the offer gets into a book: one that came late in an epoch stands in none before the next
        epoch has a transaction, which on a quiet chain nobody else may send.
        """
        for _ in range(SEEN_TRIES):
            await asyncio.sleep(self._chain.params.epoch_ms / 1000)
            try:
                if await self._chain.is_in_book(self._model, self.provider):
                    return
                await self._chain.send((Heartbeat(self.provider),))
            except DllmError as error:
                _log.warning("the offer is in no book yet: %s", error.message)

    async def keep_alive(self) -> None:
        """Send heartbeats, for ever; one that fails is tried again soon."""
        pause_s = self.beat_s
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._chain.send((Heartbeat(self.provider),))
                pause_s = self.beat_s
            except DllmError as error:
                _log.warning("heartbeat: %s", error.message)
                pause_s = min(RETRY_BEAT_S, self.beat_s)

    async def withdraw(self) -> None:
        """Take the offer back, so that no new session is sent here."""
        if self._model:
            await self._chain.send((WithdrawOffer(self.provider, self._model),))
            self._model = ""


def ask_for_layers(manifest: Manifest, layers: int) -> RowPrices:
    """The same for a slice of so many layers; nothing where their part of the reserve is nothing."""
    limit = part_of(manifest.reserve_prices, layers, manifest.layers)
    asked = ask_for(limit)
    if layers == manifest.layers or asked.within(limit):
        return asked
    return RowPrices(
        min(asked.prompt_udllm, limit.prompt_udllm),
        min(asked.kept_udllm, limit.kept_udllm),
        min(asked.drafted_udllm, limit.drafted_udllm),
        min(asked.replayed_udllm, limit.replayed_udllm),
    )


def ask_for(reserve: RowPrices) -> RowPrices:
    """What a worker asks that was told nothing: half of the most that it may ask, and never nothing."""
    return RowPrices(
        *(
            max(1, price // 2)
            for price in (
                reserve.prompt_udllm,
                reserve.kept_udllm,
                reserve.drafted_udllm,
                reserve.replayed_udllm,
            )
        )
    )
