"""What a worker puts on chain, and what it does not do without being allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dllm_chat.embedded.chain import LOCAL_PARAMS
from dllm_protocol.actions import (
    Heartbeat,
    RegisterModel,
    RegisterProvider,
    SetOffer,
    UpdateProvider,
    WithdrawOffer,
)
from dllm_protocol.encoding import Record
from dllm_protocol.pricing import RowPrices
from dllm_protocol.refusals import AlreadyExists, InsufficientFunds
from local_worker import registration
from local_worker.errors import ModelNotRegistered, NotRegistered
from local_worker.keys import WorkerKeys, create_keys
from local_worker.registration import OfferTerms, Registration, ask_for
from tests.local_worker.doubles import ChainDouble
from tests.local_worker.test_settlement import MANIFEST

ENDPOINTS = ("ws://127.0.0.1:7",)
OWNER = b"\x55" * 20


@dataclass
class Racer(ChainDouble):
    """Another worker registers the model in the same block."""

    raced: bool = False

    async def send(self, actions: Sequence[Record]) -> None:
        if not self.raced:
            self.raced = True
            self._apply(RegisterModel(MANIFEST))
            raise AlreadyExists("the model m is registered")
        await super().send(actions)


@pytest.fixture
def keys(tmp_path: Path) -> WorkerKeys:
    return create_keys(tmp_path / "w")


def kinds(chain: ChainDouble) -> list[type[object]]:
    return [type(action) for action in chain.sent]


async def announce(place: Registration, *, may: bool = True, terms: OfferTerms | None = None) -> None:
    await place.announce(MANIFEST, ENDPOINTS, terms or OfferTerms(), may_register_model=may)


async def test_the_first_start_registers_and_the_second_only_offers(keys: WorkerKeys) -> None:
    chain = ChainDouble(keys.operator_address)
    await announce(Registration(chain, keys, None))
    assert kinds(chain) == [RegisterModel, RegisterProvider, SetOffer]
    registered = chain.sent[1]
    assert isinstance(registered, RegisterProvider)
    assert registered.bond_udllm == chain.params.provider_bond_udllm
    chain.sent.clear()
    place = Registration(chain, keys, None)
    await announce(place)
    assert kinds(chain) == [SetOffer]
    await place.withdraw()
    await place.withdraw()
    assert kinds(chain) == [SetOffer, WithdrawOffer]


async def test_the_ask_is_half_of_the_reserve_or_what_was_said(keys: WorkerKeys) -> None:
    chain = ChainDouble(keys.operator_address)
    await announce(Registration(chain, keys, None))
    await announce(Registration(chain, keys, None), terms=OfferTerms(RowPrices(1, 2, 3, 4), 5))
    offers = [action for action in chain.sent if isinstance(action, SetOffer)]
    assert [offer.prices for offer in offers] == [ask_for(MANIFEST.reserve_prices), RowPrices(1, 2, 3, 4)]
    assert [offer.capacity_sessions for offer in offers] == [16, 5]
    assert ask_for(RowPrices(0, 1, 2, 1001)) == RowPrices(1, 1, 1, 500)


async def test_a_model_is_not_registered_without_leave(keys: WorkerKeys) -> None:
    chain = ChainDouble(keys.operator_address)
    with pytest.raises(ModelNotRegistered, match="no model m"):
        await announce(Registration(chain, keys, None), may=False)
    assert chain.sent == []


async def test_two_workers_register_one_model_at_the_same_moment(keys: WorkerKeys) -> None:
    chain = Racer(keys.operator_address)
    await announce(Registration(chain, keys, None))
    assert kinds(chain) == [RegisterProvider, SetOffer]


async def test_an_owner_who_registered_is_found_and_keys_are_brought_up_to_date(
    keys: WorkerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "OWNER_POLL_S", 0.01)
    chain = ChainDouble(OWNER)
    await chain.send((RegisterModel(MANIFEST),))
    place = Registration(chain, keys, OWNER)
    starting = asyncio.create_task(announce(place, may=False))
    await asyncio.sleep(0.05)
    owners = RegisterProvider(keys.operator_address, b"\1" * 32, b"\2" * 32, ("ws://127.0.0.1:1",), "", 5)
    await chain.send((owners,))
    await starting
    assert kinds(chain) == [RegisterModel, RegisterProvider, UpdateProvider, SetOffer]
    assert chain.providers[place.provider].service_key == keys.service.public_key
    assert chain.providers[place.provider].endpoints == ENDPOINTS


async def test_an_owner_who_never_registers_is_named(
    keys: WorkerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "OWNER_POLL_S", 0.01)
    monkeypatch.setattr(registration, "OWNER_WAIT_S", 0.03)
    chain = ChainDouble(OWNER)
    with pytest.raises(NotRegistered, match=OWNER.hex()):
        await announce(Registration(chain, keys, OWNER))


async def test_heartbeats_go_on_after_one_failed(keys: WorkerKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registration, "beat_s", 0.01)
    chain = ChainDouble(keys.operator_address, refuse_next=[InsufficientFunds("none left")])
    beating = asyncio.create_task(Registration(chain, keys, None).keep_alive())
    async with asyncio.timeout(60):
        while len(chain.sent) < 2:  # noqa: ASYNC110  the double announces nothing
            await asyncio.sleep(0.01)
    beating.cancel()
    assert set(kinds(chain)) == {Heartbeat} and not chain.refuse_next


async def test_an_offer_that_no_book_has_beats_once_an_epoch_until_one_has(keys: WorkerKeys) -> None:
    chain = ChainDouble(keys.operator_address, params=replace(LOCAL_PARAMS, epoch_ms=1))
    await Registration(chain, keys, None).be_seen()
    assert kinds(chain) == []
    chain.epochs_until_book = 2
    await Registration(chain, keys, None).be_seen()
    assert kinds(chain) == [Heartbeat, Heartbeat]
    chain.sent.clear()
    chain.epochs_until_book, chain.refuse_next = 1000, [InsufficientFunds("none left")]
    await Registration(chain, keys, None).be_seen()
    assert kinds(chain) == [Heartbeat] * (registration.SEEN_TRIES - 1)


def test_an_offer_is_kept_alive_three_times_a_life(keys: WorkerKeys) -> None:
    chain = ChainDouble(keys.operator_address)
    life_s = chain.params.offer_life_epochs * chain.params.epoch_ms / 1000
    assert Registration(chain, keys, None).beat_s == life_s / 3
