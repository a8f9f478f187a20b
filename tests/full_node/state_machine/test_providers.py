"""Providers: registration, keys, bonds and offers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol import refusals, state_keys
from dllm_protocol.actions import (
    BondProvider,
    Heartbeat,
    SetOffer,
    Transfer,
    UnbondProvider,
    UpdateProvider,
    WithdrawOffer,
)
from dllm_protocol.pricing import RowPrices
from dllm_protocol.records import MAX_UNBONDING, ModelSet, Offer, ProviderSet
from full_node.state_machine.state import read
from tests.full_node.state_machine.world import (
    FEE_UDLLM,
    FUNDS_UDLLM,
    LAYERS,
    MODEL,
    PARAMS,
    PRICES,
    RESERVE,
    World,
    address,
    provider_id,
    refused,
    signer,
)

BOB = provider_id("bob")
BOND = PARAMS.provider_bond_udllm


@pytest.fixture
def world() -> World:
    """Bob is registered, with twice the least bond and without an offer; his operator has fee money."""
    made = World()
    registered = made.do("bob", made.registration("bob", 2 * BOND))
    assert registered.data == BOB
    made.do("dave", Transfer(address("bob's operator"), 1_000_000))
    return made


def offering(**changes: object) -> SetOffer:
    return replace(SetOffer(BOB, MODEL, 0, LAYERS, PRICES, 4), **changes)  # type: ignore[arg-type]  # by name


# --- registration and keys


def test_a_provider_is_registered_under_owner_and_operator(world: World) -> None:
    provider = world.provider("bob")
    assert (provider.owner, provider.operator) == (address("bob"), address("bob's operator"))
    assert provider.bond_udllm == 2 * BOND
    assert world.record(state_keys.providers_of(address("bob")), ProviderSet).providers == (BOB,)
    assert world.balance("bob") == FUNDS_UDLLM - 2 * BOND - FEE_UDLLM


def test_an_owners_providers_are_listed_in_order(world: World) -> None:
    for name in ("x", "y", "z"):
        world.do("bob", replace(world.registration("bob"), operator=address(name)))
    listed = world.record(state_keys.providers_of(address("bob")), ProviderSet).providers
    assert len(listed) == 4
    assert list(listed) == sorted(listed)


def test_a_provider_is_registered_once(world: World) -> None:
    refused(world.send("bob", world.registration("bob")), refusals.AlreadyExists, BOB)


def test_a_bond_below_the_least_is_refused_naming_both(world: World) -> None:
    result = world.send("carol", world.registration("carol", BOND - 1))
    refused(result, refusals.BondTooSmall, BOND, BOND - 1)


@pytest.mark.parametrize("name", ["bob", "bob's operator"])
def test_owner_and_operator_rotate_keys_and_move(world: World, name: str) -> None:
    world.do(name, UpdateProvider(BOB, b"k" * 32, b"", ("wss://new",)))
    provider = world.provider("bob")
    assert (provider.service_key, provider.sealing_key) == (b"k" * 32, b"x" * 32)
    assert provider.endpoints == ("wss://new",)


STRANGERS_TRIES = (
    UpdateProvider(BOB, b"k" * 32, b"", ()),
    BondProvider(BOB, 5),
    UnbondProvider(BOB, 5),
    offering(),
    WithdrawOffer(BOB, MODEL),
    Heartbeat(BOB),
)


@pytest.mark.parametrize("action", STRANGERS_TRIES, ids=lambda action: type(action).__name__)
def test_a_stranger_does_nothing_for_a_provider(world: World, action: SetOffer) -> None:
    refused(world.send("carol", action), refusals.NotAuthorised, address("carol"), address("bob"))


@pytest.mark.parametrize("action", STRANGERS_TRIES, ids=lambda action: type(action).__name__)
def test_an_unknown_provider_is_refused(world: World, action: SetOffer) -> None:
    unknown = replace(action, provider=b"p" * 20)
    refused(world.send("bob", unknown), refusals.UnknownProvider, b"p" * 20)


@pytest.mark.parametrize("action", [BondProvider(BOB, 5), UnbondProvider(BOB, 5)])
def test_the_operator_does_not_touch_the_bond(world: World, action: BondProvider) -> None:
    result = world.send("bob's operator", action)
    refused(result, refusals.NotAuthorised, address("bob's operator"), address("bob"))


# --- bonds


def test_a_bond_grows(world: World) -> None:
    world.do("bob", BondProvider(BOB, 5))
    assert world.provider("bob").bond_udllm == 2 * BOND + 5


def test_bonding_nothing_is_refused(world: World) -> None:
    refused(world.send("bob", BondProvider(BOB, 0)), refusals.BadValue)


def test_bond_comes_back_after_the_unbonding_time_and_not_before(world: World) -> None:
    world.do("bob", UnbondProvider(BOB, BOND))
    before = world.balance("bob")
    world.do("bob", UnbondProvider(BOB, 0), after_ms=PARAMS.unbonding_ms - 1)
    assert world.balance("bob") == before - FEE_UDLLM
    world.do("bob", UnbondProvider(BOB, 0), after_ms=1)
    assert world.balance("bob") == before - 2 * FEE_UDLLM + BOND
    assert world.provider("bob").unbonding == ()
    assert world.provider("bob").bond_udllm == BOND


def test_matured_bond_is_collected_by_any_action_of_the_owner_on_the_provider(world: World) -> None:
    world.do("bob", UnbondProvider(BOB, BOND))
    before = world.balance("bob")
    world.do("bob's operator", Heartbeat(BOB), after_ms=PARAMS.unbonding_ms)
    assert world.balance("bob") == before
    world.do("bob", Heartbeat(BOB))
    assert world.balance("bob") == before + BOND - FEE_UDLLM


@pytest.mark.parametrize("action", [SetOffer(BOB, MODEL, 0, LAYERS, PRICES, 2), WithdrawOffer(BOB, MODEL)])
def test_offering_and_withdrawing_collect_too(world: World, action: SetOffer) -> None:
    world.do("bob", offering(), UnbondProvider(BOB, 30))
    before = world.balance("bob")
    world.do("bob", action, after_ms=PARAMS.unbonding_ms)
    assert world.balance("bob") == before + 30 - FEE_UDLLM


def test_only_what_is_due_is_collected(world: World) -> None:
    world.do("bob", UnbondProvider(BOB, 30))
    world.do("bob", UnbondProvider(BOB, 40), after_ms=1_000)
    before = world.balance("bob")
    world.do("bob", UnbondProvider(BOB, 0), after_ms=PARAMS.unbonding_ms - 1_000)
    assert world.balance("bob") == before + 30 - FEE_UDLLM
    assert [entry.amount_udllm for entry in world.provider("bob").unbonding] == [40]


def test_more_than_the_bond_does_not_leave(world: World) -> None:
    result = world.send("bob", UnbondProvider(BOB, 2 * BOND + 1))
    refused(result, refusals.BondTooSmall, 2 * BOND + 1, 2 * BOND)


def test_the_bond_stays_above_the_least_while_an_offer_stands(world: World) -> None:
    world.do("bob", offering())
    result = world.send("bob", UnbondProvider(BOB, BOND + 1))
    refused(result, refusals.BondTooSmall, BOND - 1, BOND)
    world.do("bob", WithdrawOffer(BOB, MODEL))
    world.do("bob", UnbondProvider(BOB, 2 * BOND))
    refused(world.send("bob", offering()), refusals.BondTooSmall, 0, BOND)


def test_at_most_sixteen_amounts_are_on_their_way_back(world: World) -> None:
    world.do("bob", *(UnbondProvider(BOB, 1) for _ in range(MAX_UNBONDING)))
    refused(world.send("bob", UnbondProvider(BOB, 1)), refusals.BadValue, MAX_UNBONDING)


# --- offers


def test_an_offer_stands_and_is_listed(world: World) -> None:
    world.do("bob's operator", offering())
    assert world.record(state_keys.offer(MODEL, BOB), Offer).capacity_sessions == 4
    assert world.record(state_keys.live_offers(MODEL), ProviderSet).providers == (BOB,)
    assert world.record(state_keys.offers_of(BOB), ModelSet).names == (MODEL,)


def test_a_withdrawn_offer_leaves_every_list(world: World) -> None:
    world.do("bob", offering())
    world.do("bob", WithdrawOffer(BOB, MODEL))
    for key in (state_keys.offer(MODEL, BOB), state_keys.live_offers(MODEL), state_keys.offers_of(BOB)):
        assert world.reader.get(key) is None
    refused(world.send("bob", WithdrawOffer(BOB, MODEL)), refusals.UnknownOffer, BOB, MODEL)


@pytest.mark.parametrize("layers", [(0, LAYERS + 1), (2, 2), (3, 1)])
def test_layers_that_the_model_does_not_have_are_refused(world: World, layers: tuple[int, int]) -> None:
    offer = offering(first_layer=layers[0], end_layer=layers[1])
    refused(world.send("bob", offer), refusals.BadValue, f"[{layers[0]}, {layers[1]})", LAYERS)


@pytest.mark.parametrize("field", ["prompt_udllm", "kept_udllm", "drafted_udllm", "replayed_udllm"])
def test_a_price_above_the_reserve_is_refused(world: World, field: str) -> None:
    dear = replace(RESERVE, **{field: getattr(RESERVE, field) + 1})
    refused(world.send("bob", offering(prices=dear)), refusals.PriceAboveReserve)
    world.do("bob", offering(prices=RESERVE))


def test_an_offer_without_room_is_refused(world: World) -> None:
    refused(world.send("bob", offering(capacity_sessions=0)), refusals.BadValue)


def test_an_offer_for_an_unknown_model_is_refused(world: World) -> None:
    refused(world.send("bob", offering(model="other")), refusals.UnknownModel, "other")


def test_a_model_takes_no_more_offers_than_the_parameter_says() -> None:
    world = World(replace(PARAMS, max_offers_per_model=1))
    world.provide("bob")
    world.provide("bob", RowPrices(1, 1, 1, 1))
    world.do("carol", world.registration("carol"))
    second = offering(provider=provider_id("carol"))
    refused(world.send("carol", second), refusals.BadValue, "1 offers stand")


def test_an_offer_renews_the_providers_life(world: World) -> None:
    world.do("bob", offering(), after_ms=5 * PARAMS.epoch_ms)
    assert world.provider("bob").alive_epoch == 5
    assert read(world.reader, state_keys.offer(MODEL, BOB), Offer) is not None
    assert world.provider("bob").service_key == signer("bob's service").public_key
