"""Two acks for one voucher cost the bond."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol import refusals
from dllm_protocol.actions import BondProvider, ReportContradiction, SetOffer, UnbondProvider, UpdateProvider
from dllm_protocol.records import MAX_RETIRED_KEYS
from dllm_protocol.voucher import SignedAck, WindowAck, sign_ack
from tests.full_node.state_machine.world import (
    LAYERS,
    MODEL,
    PARAMS,
    PRICES,
    World,
    provider_id,
    refused,
    signer,
)

BOB = provider_id("bob")
BOND = PARAMS.provider_bond_udllm


@pytest.fixture
def world() -> World:
    made = World()
    made.provide("bob")
    made.provide("carol")
    return made


def ack(world: World, *, key: str = "bob's service", **changes: object) -> SignedAck:
    made = WindowAck(world.chain_id, b"s" * 32, BOB, 3, b"t" * 32, b"o" * 32, 100)
    return sign_ack(signer(key), replace(made, **changes))  # type: ignore[arg-type]  # fields by name


@pytest.mark.parametrize(
    "change", [{"outputs": b"p" * 32}, {"transcript": b"u" * 32}, {"cumulative_udllm": 101}]
)
def test_two_different_acks_of_one_voucher_cost_half_the_bond(
    world: World, change: dict[str, object]
) -> None:
    world.do("dave", ReportContradiction(ack(world), ack(world, **change)))
    provider = world.provider("bob")
    assert provider.bond_udllm == BOND // 2
    assert provider.jailed == 1
    assert world.pool() == BOND // 2


def test_bond_on_its_way_back_is_slashed_too(world: World) -> None:
    world.do("bob", BondProvider(BOB, BOND))
    world.do("bob", UnbondProvider(BOB, 1_000))
    world.do("dave", ReportContradiction(ack(world), ack(world, outputs=b"p" * 32)))
    assert [entry.amount_udllm for entry in world.provider("bob").unbonding] == [500]
    assert world.pool() == BOND


def test_a_provider_with_enough_bond_left_is_not_jailed(world: World) -> None:
    world.do("bob", BondProvider(BOB, BOND))
    world.do("dave", ReportContradiction(ack(world), ack(world, outputs=b"p" * 32)))
    assert (world.provider("bob").bond_udllm, world.provider("bob").jailed) == (BOND, 0)


def test_a_jailed_provider_leaves_the_next_book_and_sets_no_offers(world: World) -> None:
    world.do("dave", ReportContradiction(ack(world), ack(world, outputs=b"p" * 32)))
    result = world.send("bob", SetOffer(BOB, MODEL, 0, LAYERS, PRICES, 4), after_ms=PARAMS.epoch_ms)
    refused(result, refusals.BondTooSmall, BOND // 2, BOND)
    assert [entry.provider for entry in world.book().entries] == [provider_id("carol")]


def test_a_jailed_provider_gets_no_sessions_in_the_epoch_of_its_fall(world: World) -> None:
    world.do("dave", ReportContradiction(ack(world), ack(world, outputs=b"p" * 32)))
    assert BOB in [entry.provider for entry in world.book().entries]
    assert world.route(world.open("alice")).stages[0].stage.provider == provider_id("carol")


def test_a_bond_that_is_whole_again_ends_the_jailing(world: World) -> None:
    world.do("dave", ReportContradiction(ack(world), ack(world, outputs=b"p" * 32)))
    world.do("bob", BondProvider(BOB, BOND // 2 - 1))
    assert world.provider("bob").jailed == 1
    world.do("bob", BondProvider(BOB, 1))
    assert world.provider("bob").jailed == 0
    world.do("bob", BondProvider(BOB, 1), after_ms=PARAMS.epoch_ms)
    assert len(world.book().entries) == 2


def test_one_voucher_is_slashed_once(world: World) -> None:
    world.do("dave", ReportContradiction(ack(world), ack(world, outputs=b"p" * 32)))
    again = ReportContradiction(ack(world), ack(world, outputs=b"q" * 32))
    refused(world.send("dave", again), refusals.AlreadyExists, BOB)
    world.do("dave", ReportContradiction(ack(world, n=4), ack(world, n=4, outputs=b"p" * 32)))
    assert world.provider("bob").bond_udllm == BOND // 4


@pytest.mark.parametrize("change", [{}, {"n": 4}, {"session": b"z" * 32}, {"provider": b"p" * 20}])
def test_acks_that_can_both_be_honest_are_refused(world: World, change: dict[str, object]) -> None:
    report = ReportContradiction(ack(world), ack(world, **change))
    refused(world.send("dave", report), refusals.NotContradictory)


def test_a_forged_ack_is_refused(world: World) -> None:
    report = ReportContradiction(ack(world), ack(world, key="mallory", outputs=b"p" * 32))
    refused(world.send("dave", report), refusals.BadAck, signer("bob's service").public_key)


def test_acks_of_another_chain_are_refused(world: World) -> None:
    first, second = (ack(world, chain_id="other-1", outputs=one * 32) for one in (b"o", b"p"))
    result = world.send("dave", ReportContradiction(first, second))
    refused(result, refusals.BadAck, "other-1", world.chain_id)


def test_acks_of_an_unknown_provider_are_refused(world: World) -> None:
    first, second = (ack(world, provider=b"p" * 20, outputs=one * 32) for one in (b"o", b"p"))
    refused(world.send("dave", ReportContradiction(first, second)), refusals.UnknownProvider)


def test_rotating_the_key_away_is_no_way_out(world: World) -> None:
    world.do("bob", UpdateProvider(BOB, signer("new service").public_key, b"", ()))
    world.do("dave", ReportContradiction(ack(world), ack(world, key="new service", outputs=b"p" * 32)))
    assert world.provider("bob").bond_udllm == BOND // 2


def test_a_key_counts_as_long_as_bond_stays_slashable_after_it(world: World) -> None:
    world.do("bob", UpdateProvider(BOB, signer("new service").public_key, b"", ()))
    report = ReportContradiction(ack(world), ack(world, outputs=b"p" * 32))
    refused(world.send("dave", report, after_ms=PARAMS.unbonding_ms), refusals.BadAck)
    world.do("bob", UpdateProvider(BOB, b"", b"", ("ws://elsewhere:1",)))
    assert world.provider("bob").retired == ()


def test_keys_are_not_rotated_faster_than_they_are_forgotten(world: World) -> None:
    for number in range(MAX_RETIRED_KEYS):
        world.do("bob", UpdateProvider(BOB, signer(f"service {number}").public_key, b"", ()))
    same = UpdateProvider(BOB, world.provider("bob").service_key, b"", ())
    world.do("bob", same)
    assert len(world.provider("bob").retired) == MAX_RETIRED_KEYS
    one_more = UpdateProvider(BOB, signer("one more").public_key, b"", ())
    refused(world.send("bob", one_more), refusals.BadValue, world.provider("bob").retired[0].until_ms)
    world.do("bob", one_more, after_ms=PARAMS.unbonding_ms)
