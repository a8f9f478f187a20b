"""Sessions while they are open: assignment, deposits and claims, on the real application."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol import refusals, state_keys
from dllm_protocol.actions import ClaimVoucher, GrantChatKey, SetOffer, TopUpSession, Transfer, WithdrawOffer
from dllm_protocol.assignment import check_route, loads_of, make_route, route_hash
from dllm_protocol.model_manifest import manifest_hash
from dllm_protocol.pricing import RowPrices, client_price, part_of
from dllm_protocol.ranked_book import rank, rules_of
from dllm_protocol.records import SESSION_OPEN, Offer
from dllm_protocol.voucher import ROLE_STANDBY, Payee, SignedVoucher, VoucherLeg, sign_voucher
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
    kept,
    make_manifest,
    provider_id,
    refused,
    signer,
)

BOB, CAROL = provider_id("bob"), provider_id("carol")
CHEAPER = RowPrices(500, 5_000, 5_000, 500)


@pytest.fixture
def world() -> World:
    """Bob serves, carol stands by (dearer), alice asks."""
    made = World()
    made.provide("bob", CHEAPER)
    made.provide("carol")
    return made


def resigned(voucher: SignedVoucher, key: str = "session 1", **changes: object) -> SignedVoucher:
    """The voucher with other content, signed again."""
    return sign_voucher(signer(key), replace(voucher.voucher, **changes))  # type: ignore[arg-type]  # fields by name


def offer_of(world: World, provider: bytes) -> Offer | None:
    return read(world.reader, state_keys.offer(MODEL, provider), Offer)


# --- opening


def test_a_session_locks_its_deposit_and_gets_the_cheapest_stage_with_another_owners_standby(
    world: World,
) -> None:
    session_id = world.open("alice", deposit_udllm=1_000_000)

    session, route = world.session(session_id), world.route(session_id)
    assert world.balance("alice") == FUNDS_UDLLM - 1_000_000 - FEE_UDLLM
    assert (session.status, session.deposit_udllm, session.spent_udllm) == (SESSION_OPEN, 1_000_000, 0)
    assert session.route_hash == route_hash(route)
    assert route.stages[0].stage.provider == BOB
    assert route.stages[0].standby is not None
    assert route.stages[0].standby.provider == CAROL


def tick_epoch(world: World) -> None:
    """Let an epoch pass, so that the book is frozen anew."""
    world.do("erin", Transfer(address("alice"), 1), after_ms=PARAMS.epoch_ms)


def test_everyone_can_compute_the_route_again(world: World) -> None:
    world.provide("bob", CHEAPER, capacity_sessions=1)
    world.open("alice", "session 0")
    world.provide("dave")
    tick_epoch(world)
    route = world.route(world.open("alice"))
    again = make_route(
        rank(world.book(), rules_of(make_manifest(), PARAMS)),
        account=address("alice"),
        session_key=signer("session 1").public_key,
        manifest_hash=manifest_hash(make_manifest()),
        max_prices=RESERVE,
        exclusions=(),
        load_of=loads_of(route),
    )
    check_route(route, again)
    assert route == again
    assert {load.provider: load.open_sessions for load in route.loads} == {BOB: 1}, "carol has room"
    assert route.book_hash == world.head().book_hash


def test_an_opened_session_is_told_in_an_event_with_its_route(world: World) -> None:
    result = world.do("alice", world.opening("session 1"))
    told = {one.key: one.value for event in result.events for one in event.attributes}
    assert told["session"] == result.data.hex()
    assert told["route_hash"] == world.session(result.data).route_hash.hex()


def test_excluded_providers_are_not_chosen(world: World) -> None:
    route = world.route(world.open("alice", exclusions=(BOB,)))
    assert route.stages[0].stage.provider == CAROL
    assert route.stages[0].standby is None


def test_exclusions_out_of_order_are_refused(world: World) -> None:
    wrong = tuple(sorted((BOB, CAROL), reverse=True))
    refused(world.send("alice", world.opening("session 1", exclusions=wrong)), refusals.BadValue)


def test_a_session_below_every_ask_has_no_route_and_costs_only_the_fee(world: World) -> None:
    result = world.send("alice", world.opening("session 1", max_prices=RowPrices(1, 1, 1, 1)))
    refused(result, refusals.NoRoute, MODEL)
    assert world.balance("alice") == FUNDS_UDLLM - FEE_UDLLM


def test_a_session_for_an_unknown_model_is_refused(world: World) -> None:
    refused(world.send("alice", world.opening("s", model="other")), refusals.UnknownModel, "other")


def test_a_session_before_any_book_was_frozen_has_no_route() -> None:
    refused(World().send("alice", World().opening("s")), refusals.NoRoute, MODEL)


def test_a_session_key_opens_one_session_only(world: World) -> None:
    session_id = world.open("alice")
    refused(world.send("alice", world.opening("session 1")), refusals.AlreadyExists, session_id)


def test_a_session_without_a_deposit_is_refused(world: World) -> None:
    refused(world.send("alice", world.opening("s", deposit_udllm=0)), refusals.BadValue)


def test_a_deposit_above_the_balance_is_refused_naming_both(world: World) -> None:
    wanted = FUNDS_UDLLM + 1
    result = world.send("alice", world.opening("s", deposit_udllm=wanted))
    refused(result, refusals.InsufficientFunds, FUNDS_UDLLM - FEE_UDLLM, wanted)


def test_a_full_offer_takes_no_more_sessions(world: World) -> None:
    world.provide("bob", CHEAPER, capacity_sessions=1)
    world.provide("dave")
    world.block(world.sign("alice", world.opening("s 0")), after_ms=PARAMS.epoch_ms)
    route = world.route(world.open("alice"))
    assert route.stages[0].stage.provider != BOB


def test_an_offer_that_was_withdrawn_in_the_same_epoch_counts_as_full(world: World) -> None:
    world.do("bob", WithdrawOffer(BOB, MODEL))
    assert BOB in [entry.provider for entry in world.book().entries]
    route = world.route(world.open("alice"))
    assert route.stages[0].stage.provider == CAROL
    assert {load.provider: load.open_sessions for load in route.loads}[BOB] == 4


def test_an_offer_whose_layers_moved_in_the_same_epoch_counts_as_full() -> None:
    world = World(chunked=True)
    world.provide("bob", CHEAPER)
    world.provide("carol")
    world.do("bob", SetOffer(BOB, MODEL, 0, LAYERS - 1, part_of(CHEAPER, LAYERS - 1, LAYERS), 4))
    assert world.route(world.open("alice")).stages[0].stage.provider == CAROL


def test_open_sessions_are_counted_on_stage_and_standby(world: World) -> None:
    world.open("alice")
    for provider in (BOB, CAROL):
        offer = offer_of(world, provider)
        assert offer is not None
        assert offer.open_sessions == 1


def test_a_new_offer_keeps_the_count_of_open_sessions(world: World) -> None:
    world.open("alice")
    world.provide("bob", PRICES, capacity_sessions=9)
    offer = offer_of(world, BOB)
    assert offer is not None
    assert (offer.open_sessions, offer.capacity_sessions) == (1, 9)


# --- topping up


def test_a_top_up_adds_to_the_deposit(world: World) -> None:
    session_id = world.open("alice", deposit_udllm=100)
    world.do("alice", TopUpSession(session_id, 50))
    assert world.session(session_id).deposit_udllm == 150


def test_only_the_account_tops_a_session_up(world: World) -> None:
    session_id = world.open("alice")
    result = world.send("bob", TopUpSession(session_id, 50))
    refused(result, refusals.NotAuthorised, address("bob"), address("alice"))


def test_a_top_up_by_nothing_is_refused(world: World) -> None:
    refused(world.send("alice", TopUpSession(world.open("alice"), 0)), refusals.BadValue)


def test_a_top_up_of_an_unknown_session_is_refused(world: World) -> None:
    refused(world.send("alice", TopUpSession(bytes(32), 1)), refusals.UnknownSession)


# --- the chat key


def test_a_chat_key_opens_and_tops_up_within_its_cap(world: World) -> None:
    world.do("alice", GrantChatKey(signer("chat").public_key, 100_000))
    world.do("alice", world.opening("session 1", deposit_udllm=50_000), key="chat")
    result = world.send("alice", world.opening("session 2", deposit_udllm=50_000), key="chat")
    left = 100_000 - 50_000 - 2 * FEE_UDLLM
    refused(result, refusals.ChatKeyCapExceeded, left, 50_000)


# --- claiming


def test_a_claim_pays_the_owner_and_the_community_at_once(world: World) -> None:
    session_id = world.open("alice")
    before = world.balance("bob")
    world.do("carol", ClaimVoucher(world.voucher(session_id, 1, {BOB: kept(100)})))

    session = world.session(session_id)
    assert world.balance("bob") - before == 500
    assert world.pool() == client_price(500, PARAMS.community_share_ppm) - 500
    assert session.spent_udllm == 500 + world.pool()
    assert (session.status, session.voucher_n) == (SESSION_OPEN, 1)


def test_claims_pay_only_what_came_on_top(world: World) -> None:
    session_id = world.open("alice")
    before = world.balance("bob")
    for n, rows in ((1, 3), (2, 7), (9, 20)):
        world.do("carol", ClaimVoucher(world.voucher(session_id, n, {BOB: kept(rows)})))
    assert world.balance("bob") - before == 100
    assert world.session(session_id).spent_udllm == client_price(100, PARAMS.community_share_ppm)
    assert world.pool() == client_price(100, PARAMS.community_share_ppm) - 100


def test_a_takeover_is_paid_beside_what_the_failed_stage_got(world: World) -> None:
    session_id = world.open("alice")
    bob, carol = world.balance("bob"), world.balance("carol")
    world.do("dave", ClaimVoucher(world.voucher(session_id, 1, {BOB: kept(10)})))
    world.do("dave", ClaimVoucher(world.voucher(session_id, 2, {BOB: kept(10), CAROL: kept(20)})))
    assert (world.balance("bob") - bob, world.balance("carol") - carol) == (50, 200)
    assert [leg.payees[0].role for leg in world.session(session_id).legs if leg.provider == CAROL] == [
        ROLE_STANDBY
    ]


def test_each_leg_is_paid_the_most_that_any_voucher_says_whatever_their_order(world: World) -> None:
    # A client that leaves a provider out of its next voucher, and has that one claimed first, robs nobody.
    session_id = world.open("alice")
    before = world.balance("bob")
    world.do("dave", ClaimVoucher(world.voucher(session_id, 3, {BOB: kept(50), CAROL: kept(1)})))
    assert world.session(session_id).voucher_n == 3
    world.do("dave", ClaimVoucher(world.voucher(session_id, 2, {BOB: kept(100)})))
    assert world.balance("bob") == before + 500
    assert world.session(session_id).voucher_n == 3
    assert [leg.rows.kept for leg in world.session(session_id).legs if leg.provider == BOB] == [100]
    world.do("dave", ClaimVoucher(world.voucher(session_id, 4, {BOB: kept(101)})))
    assert world.balance("bob") == before + 505


def test_vouchers_that_promise_more_than_the_deposit_together_are_paid_what_is_left(world: World) -> None:
    session_id = world.open("alice", deposit_udllm=1_000)
    bob, carol = world.balance("bob"), world.balance("carol")
    world.do("dave", ClaimVoucher(world.voucher(session_id, 1, {BOB: kept(160)})))
    world.do("dave", ClaimVoucher(world.voucher(session_id, 2, {BOB: kept(1), CAROL: kept(80)})))
    assert (world.balance("bob") - bob, world.balance("carol") - carol) == (800, 100)
    assert world.session(session_id).spent_udllm == 1_000
    result = world.send("dave", ClaimVoucher(world.voucher(session_id, 3, {CAROL: kept(89)})))
    refused(result, refusals.VoucherNotHigher)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_claim_that_gives_nobody_more_is_refused(world: World, n: int) -> None:
    session_id = world.open("alice")
    world.do("bob", ClaimVoucher(world.voucher(session_id, 2, {BOB: kept(10)})))
    lower = ClaimVoucher(world.voucher(session_id, n, {BOB: kept(10)}))
    refused(world.send("bob", lower), refusals.VoucherNotHigher, f"voucher {n} ", "voucher 2,")


def test_a_claim_on_an_unknown_session_is_refused(world: World) -> None:
    voucher = world.voucher(world.open("alice"), 1, {BOB: kept(1)})
    unknown = resigned(voucher, session=b"u" * 32)
    refused(world.send("bob", ClaimVoucher(unknown)), refusals.UnknownSession, b"u" * 32)


def test_a_voucher_for_another_chain_is_refused(world: World) -> None:
    voucher = resigned(world.voucher(world.open("alice"), 1, {BOB: kept(1)}), chain_id="other-1")
    result = world.send("bob", ClaimVoucher(voucher))
    refused(result, refusals.VoucherForAnotherSession, "other-1", world.chain_id)


def test_a_voucher_for_another_route_is_refused(world: World) -> None:
    session_id = world.open("alice")
    voucher = resigned(world.voucher(session_id, 1, {BOB: kept(1)}), route_hash=b"r" * 32)
    result = world.send("bob", ClaimVoucher(voucher))
    refused(result, refusals.VoucherForAnotherRoute, b"r" * 32, world.session(session_id).route_hash)


def test_a_voucher_that_another_key_signed_is_refused(world: World) -> None:
    voucher = resigned(world.voucher(world.open("alice"), 1, {BOB: kept(1)}), key="mallory")
    result = world.send("bob", ClaimVoucher(voucher))
    refused(result, refusals.BadVoucherSignature, signer("session 1").public_key)


def test_a_leg_of_a_provider_outside_the_route_is_refused(world: World) -> None:
    voucher = world.voucher(world.open("alice"), 1, {BOB: kept(1)})
    leg = replace(voucher.voucher.legs[0], provider=b"p" * 20)
    result = world.send("bob", ClaimVoucher(resigned(voucher, legs=(leg,))))
    refused(result, refusals.VoucherForAnotherRoute, b"p" * 20)


def test_a_leg_that_pays_somebody_else_is_refused(world: World) -> None:
    voucher = world.voucher(world.open("alice"), 1, {BOB: kept(1)})
    leg = replace(voucher.voucher.legs[0], payees=(Payee(address("dave"), 1, 1_000_000),))
    result = world.send("bob", ClaimVoucher(resigned(voucher, legs=(leg,))))
    refused(result, refusals.VoucherForAnotherRoute)


@pytest.mark.parametrize("order", ["reversed", "twice"])
def test_legs_that_do_not_ascend_are_refused(world: World, order: str) -> None:
    voucher = world.voucher(world.open("alice"), 1, {BOB: kept(1), CAROL: kept(1)})
    first, second = voucher.voucher.legs
    legs: tuple[VoucherLeg, ...] = (second, first) if order == "reversed" else (first, first)
    refused(world.send("bob", ClaimVoucher(resigned(voucher, legs=legs))), refusals.BadValue)


@pytest.mark.parametrize("change", [-1, 1])
def test_an_amount_that_is_not_the_price_of_the_rows_is_refused(world: World, change: int) -> None:
    voucher = world.voucher(world.open("alice"), 1, {BOB: kept(100)})
    leg = replace(voucher.voucher.legs[0], cumulative_udllm=500 + change)
    result = world.send("bob", ClaimVoucher(resigned(voucher, legs=(leg,))))
    refused(result, refusals.VoucherMispriced, 500, 500 + change)


def test_the_deposit_covers_payments_with_the_communitys_share_to_the_last_udllm(world: World) -> None:
    session_id = world.open("alice", deposit_udllm=556)
    too_much = ClaimVoucher(world.voucher(session_id, 1, {BOB: kept(101)}))
    refused(world.send("bob", too_much), refusals.DepositExceeded, 562, 556)
    world.do("bob", ClaimVoucher(world.voucher(session_id, 1, {BOB: kept(100)})))
    assert world.session(session_id).spent_udllm == 556


def test_a_deposit_that_was_topped_up_covers_more(world: World) -> None:
    session_id = world.open("alice", deposit_udllm=556)
    world.do("alice", TopUpSession(session_id, 6))
    world.do("bob", ClaimVoucher(world.voucher(session_id, 1, {BOB: kept(101)})))


def test_a_failed_claim_changes_nothing_but_fee_and_sequence(world: World) -> None:
    session_id = world.open("alice")
    voucher = resigned(world.voucher(session_id, 1, {BOB: kept(1)}), key="mallory")
    before = dict(world.reader.values)
    world.send("dave", ClaimVoucher(voucher))
    changed = {key for key, value in world.reader.values.items() if before.get(key) != value}
    assert changed == {state_keys.account(address("dave")), state_keys.FEE_POOL}
