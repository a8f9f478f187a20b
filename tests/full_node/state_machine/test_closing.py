"""How sessions end: at once with acks, after the grace without, and what ratings leave."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol import refusals, state_keys
from dllm_protocol.actions import (
    ClaimVoucher,
    CloseSession,
    GrantChatKey,
    Rating,
    TopUpSession,
    Transfer,
    UpdateProvider,
    WithdrawOffer,
)
from dllm_protocol.pricing import RowPrices, client_price
from dllm_protocol.records import SESSION_CLOSED, SESSION_CLOSING, Offer, RaterQuota, Reputation
from dllm_protocol.voucher import SignedAck, SignedVoucher, sign_ack
from full_node.state_machine.state import read
from tests.full_node.state_machine.world import (
    FEE_UDLLM,
    FUNDS_UDLLM,
    MODEL,
    PARAMS,
    World,
    address,
    kept,
    provider_id,
    refused,
    signer,
)

BOB, CAROL = provider_id("bob"), provider_id("carol")
CHEAPER = RowPrices(500, 5_000, 5_000, 500)
DEPOSIT_UDLLM = 1_000_000


@pytest.fixture
def world() -> World:
    """Bob serves, carol stands by, alice asks."""
    made = World()
    made.provide("bob", CHEAPER)
    made.provide("carol")
    return made


@pytest.fixture
def session(world: World) -> bytes:
    return world.open("alice", deposit_udllm=DEPOSIT_UDLLM)


def closing(
    session: bytes,
    voucher: SignedVoucher | None = None,
    *acks: SignedAck,
    ratings: tuple[Rating, ...] = (),
) -> CloseSession:
    return CloseSession(session, voucher, acks, ratings)


def _funds(name: str) -> Transfer:
    """Enough for fees."""
    return Transfer(address(name), 100_000)


# --- at once


def test_the_account_closes_at_once_with_the_ack_of_everything_owed(world: World, session: bytes) -> None:
    alice, bob = world.balance("alice"), world.balance("bob")
    world.do("alice", world.agreed(session, {BOB: kept(100)}))

    spent = client_price(500, PARAMS.community_share_ppm)
    assert world.session(session).status == SESSION_CLOSED
    assert world.balance("bob") == bob + 500
    assert world.pool() == spent - 500
    assert world.balance("alice") == alice - FEE_UDLLM + DEPOSIT_UDLLM - spent


def test_nobody_of_the_route_is_closed_over_without_an_ack_of_the_final_voucher(
    world: World, session: bytes
) -> None:
    agreed = world.agreed(session, {BOB: kept(10), CAROL: kept(5)})
    assert world.check(world.sign("alice", agreed)).code == 0
    world.do("alice", replace(agreed, acks=agreed.acks[:1]))
    assert world.session(session).status == SESSION_CLOSING
    world.do("alice", agreed)
    assert world.session(session).status == SESSION_CLOSED


def test_an_old_ack_does_not_close_over_what_came_after_it(world: World, session: bytes) -> None:
    # Bob acknowledged each window as it came. The ack of the first one shows nothing about the ninety-nine after it.
    old, new = (world.voucher(session, n, {BOB: kept(10 * n)}) for n in (1, 100))
    acks = [world.ack(owner, old.voucher) for owner in sorted(("bob", "carol"), key=provider_id)]
    world.do("alice", closing(session, old, *acks))
    assert world.session(session).status == SESSION_CLOSING
    before = world.balance("bob")
    world.do("dave", ClaimVoucher(new))
    assert world.balance("bob") == before + 5_000 - 50


def test_a_voucher_without_a_providers_leg_does_not_close_over_it(world: World, session: bytes) -> None:
    # Alice and carol agree that bob, who served, is owed nothing.
    agreed = world.agreed(session, {CAROL: kept(1)})
    only_carols = tuple(ack for ack in agreed.acks if ack.ack.provider == CAROL)
    world.do("alice", replace(agreed, acks=only_carols))
    assert world.session(session).status == SESSION_CLOSING
    before = world.balance("bob")
    world.do("dave", ClaimVoucher(world.voucher(session, 7, {BOB: kept(100)})))
    assert world.balance("bob") == before + 500


def test_a_chat_key_closes_for_its_account(world: World, session: bytes) -> None:
    world.do("alice", GrantChatKey(signer("chat").public_key, 100_000))
    world.do("alice", world.agreed(session, {BOB: kept(1)}), key="chat")
    assert world.session(session).status == SESSION_CLOSED


def test_a_final_voucher_that_was_claimed_already_still_closes(world: World, session: bytes) -> None:
    agreed = world.agreed(session, {BOB: kept(100)})
    assert agreed.voucher is not None
    world.do("bob", ClaimVoucher(agreed.voucher))
    before = world.balance("bob")
    world.do("alice", agreed)
    assert world.session(session).status == SESSION_CLOSED
    assert world.balance("bob") == before


def test_providers_make_room_when_a_session_closes(world: World, session: bytes) -> None:
    world.do("alice", world.agreed(session, {BOB: kept(1)}))
    for provider in (BOB, CAROL):
        assert world.record(state_keys.offer(MODEL, provider), Offer).open_sessions == 0


def test_a_withdrawn_offer_is_forgotten_with_its_last_session(world: World, session: bytes) -> None:
    world.do("bob", WithdrawOffer(BOB, MODEL))
    assert world.record(state_keys.offer(MODEL, BOB), Offer).capacity_sessions == 0
    world.do("alice", world.agreed(session, {BOB: kept(1)}))
    assert read(world.reader, state_keys.offer(MODEL, BOB), Offer) is None


# --- acks that do not fit


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chain_id", "other-1"),
        ("session", b"s" * 32),
        ("provider", b"p" * 20),
        ("n", 2),
        ("transcript", b"t" * 32),
        ("cumulative_udllm", 501),
    ],
)
def test_an_ack_that_differs_from_the_voucher_is_refused(
    world: World, session: bytes, field: str, value: object
) -> None:
    voucher = world.voucher(session, 1, {BOB: kept(100)})
    ack = replace(world.ack("bob", voucher.voucher).ack, **{field: value})  # type: ignore[arg-type]  # by name
    signed = sign_ack(signer("bob's service"), ack)
    result = world.send("alice", closing(session, voucher, signed))
    refused(result, refusals.BadAck, value if isinstance(value, bytes) else str(value))


def test_an_ack_that_another_key_signed_is_refused(world: World, session: bytes) -> None:
    voucher = world.voucher(session, 1, {BOB: kept(100)})
    forged = sign_ack(signer("mallory"), world.ack("bob", voucher.voucher).ack)
    result = world.send("alice", closing(session, voucher, forged))
    refused(result, refusals.BadAck, signer("bob's service").public_key)


def test_acks_count_by_the_service_key_in_force(world: World, session: bytes) -> None:
    agreed = world.agreed(session, {BOB: kept(100)})
    world.do("bob", UpdateProvider(BOB, signer("new service").public_key, b"", ()))
    refused(world.send("alice", agreed), refusals.BadAck)
    renewed = tuple(
        sign_ack(signer("new service"), signed.ack) if signed.ack.provider == BOB else signed
        for signed in agreed.acks
    )
    world.do("alice", replace(agreed, acks=renewed))
    assert world.session(session).status == SESSION_CLOSED


def test_an_ack_of_a_stranger_is_refused(world: World, session: bytes) -> None:
    voucher = world.voucher(session, 1, {BOB: kept(1)})
    refused(
        world.send("alice", closing(session, voucher, world.ack("dave", voucher.voucher))), refusals.BadAck
    )


def test_acks_without_their_voucher_are_refused(world: World, session: bytes) -> None:
    ack = world.ack("bob", world.voucher(session, 1, {BOB: kept(1)}).voucher)
    refused(world.send("alice", closing(session, None, ack)), refusals.BadAck)


# --- after the grace


def test_without_acks_the_session_stays_claimable_for_the_grace(world: World, session: bytes) -> None:
    world.do("alice", closing(session))
    closing_session = world.session(session)
    assert closing_session.status == SESSION_CLOSING
    assert closing_session.closing_until_ms == world.time_ms + PARAMS.close_grace_ms
    before = world.balance("bob")
    world.do("bob", ClaimVoucher(world.voucher(session, 1, {BOB: kept(100)})))
    assert world.balance("bob") == before + 500 - FEE_UDLLM


def test_closing_again_before_the_grace_is_over_is_refused_naming_both_times(
    world: World, session: bytes
) -> None:
    world.do("alice", closing(session))
    until = world.session(session).closing_until_ms
    result = world.send("alice", closing(session), after_ms=PARAMS.close_grace_ms - 1)
    refused(result, refusals.GraceNotOver, until, until - 1)


def test_anyone_closes_for_good_once_the_grace_is_over(world: World, session: bytes) -> None:
    world.do("alice", closing(session))
    alice = world.balance("alice")
    world.do("dave", closing(session), after_ms=PARAMS.close_grace_ms)
    assert world.session(session).status == SESSION_CLOSED
    assert world.balance("alice") == alice + DEPOSIT_UDLLM


def test_whoever_closes_for_good_may_bring_a_higher_voucher(world: World, session: bytes) -> None:
    world.do("alice", closing(session))
    bob = world.balance("bob")
    voucher = world.voucher(session, 1, {BOB: kept(100)})
    world.do("dave", closing(session, voucher), after_ms=PARAMS.close_grace_ms)
    assert world.balance("bob") == bob + 500


@pytest.mark.parametrize("name", ["bob", "bob's operator", "carol"])
def test_a_party_of_the_route_begins_to_close(world: World, session: bytes, name: str) -> None:
    world.block(world.sign("dave", _funds(name)))
    world.do(name, closing(session, world.voucher(session, 1, {BOB: kept(1)})))
    assert world.session(session).status == SESSION_CLOSING


def test_a_provider_with_all_acks_still_waits_for_the_account(world: World, session: bytes) -> None:
    world.do("bob", world.agreed(session, {BOB: kept(1)}))
    assert world.session(session).status == SESSION_CLOSING


def test_a_stranger_does_not_close_an_open_session(world: World, session: bytes) -> None:
    result = world.send("dave", closing(session))
    refused(result, refusals.NotAuthorised, address("dave"), address("alice"), BOB)


def test_a_closing_session_takes_no_top_up(world: World, session: bytes) -> None:
    world.do("alice", closing(session))
    refused(world.send("alice", TopUpSession(session, 5)), refusals.SessionClosed)


def test_nothing_happens_to_a_closed_session_any_more(world: World, session: bytes) -> None:
    world.do("alice", world.agreed(session, {BOB: kept(1)}))
    higher = world.voucher(session, 2, {BOB: kept(2)})
    for action in (closing(session), TopUpSession(session, 5), ClaimVoucher(higher)):
        refused(world.send("alice", action), refusals.SessionClosed, session)


def test_closing_an_unknown_session_is_refused(world: World) -> None:
    refused(world.send("alice", closing(b"u" * 32)), refusals.UnknownSession, b"u" * 32)


def test_a_voucher_of_another_session_does_not_close_this_one(world: World, session: bytes) -> None:
    other = world.open("alice", "session 2")
    voucher = world.voucher(other, 1, {BOB: kept(1)}, key="session 2")
    result = world.send("alice", closing(session, voucher))
    refused(result, refusals.VoucherForAnotherSession, session, other)


# --- ratings


def _rated(world: World, provider: bytes) -> Reputation | None:
    return read(world.reader, state_keys.reputation(provider, MODEL), Reputation)


def test_a_rating_counts_by_what_was_paid(world: World, session: bytes) -> None:
    world.do("alice", world.agreed(session, {BOB: kept(1000)}, ratings=(Rating(BOB, 800),)))
    evidence = _rated(world, BOB)
    weight = 5_000 // PARAMS.reputation_weight_udllm
    assert evidence is not None
    assert (evidence.successes, evidence.failures) == ((weight << 16) * 4 // 5, (weight << 16) // 5)


def test_a_rating_of_an_unpaid_stage_weighs_nothing(world: World, session: bytes) -> None:
    world.do("alice", closing(session, ratings=(Rating(BOB, 0),)))
    assert _rated(world, BOB) is None


def test_a_takeover_is_not_rated(world: World, session: bytes) -> None:
    world.do("alice", world.agreed(session, {CAROL: kept(1000)}, ratings=(Rating(CAROL, 1000),)))
    assert _rated(world, CAROL) is None


def test_nobody_rates_a_provider_of_their_own(world: World) -> None:
    session = world.open("bob")
    world.do("bob", world.agreed(session, {BOB: kept(1000)}, ratings=(Rating(BOB, 1000),)))
    assert world.session(session).status == SESSION_CLOSED
    assert _rated(world, BOB) is None


def test_a_providers_own_rating_does_not_count(world: World, session: bytes) -> None:
    voucher = world.voucher(session, 1, {BOB: kept(1000)})
    world.do("carol", closing(session, voucher, ratings=(Rating(BOB, 0),)))
    assert _rated(world, BOB) is None


def test_a_provider_that_closes_first_does_not_escape_its_rating(world: World, session: bytes) -> None:
    voucher = world.voucher(session, 1, {BOB: kept(1000)})
    world.do("bob", closing(session, voucher))
    rating = closing(session, ratings=(Rating(BOB, 0),))
    world.do("alice", rating, after_ms=PARAMS.close_grace_ms)
    evidence = _rated(world, BOB)
    assert evidence is not None
    assert evidence.failures > evidence.successes


def test_ratings_count_once_a_session(world: World, session: bytes) -> None:
    voucher = world.voucher(session, 1, {BOB: kept(1000)})
    world.do("alice", closing(session, voucher, ratings=(Rating(BOB, 1000),)))
    first = _rated(world, BOB)
    world.do("alice", world.agreed(session, {BOB: kept(1000)}, ratings=(Rating(BOB, 1000),)))
    assert world.session(session).status == SESSION_CLOSED
    assert first is not None
    assert _rated(world, BOB) == first


def test_a_payers_weight_for_a_provider_is_capped_in_an_epoch(world: World) -> None:
    for number in range(3):
        key = f"session {number}"
        session = world.open("alice", key)
        world.do("alice", world.agreed(session, {BOB: kept(3000)}, key, (Rating(BOB, 1000),)))
    quota = world.record(state_keys.rater_quota(BOB, MODEL, address("alice")), RaterQuota)
    evidence = _rated(world, BOB)
    assert evidence is not None
    assert quota.weight == PARAMS.reputation_rater_cap
    assert evidence.successes == PARAMS.reputation_rater_cap << 16


def test_the_cap_is_fresh_in_the_next_epoch_and_old_evidence_has_faded(world: World) -> None:
    for key, wait in (("a", 200), ("b", PARAMS.epoch_ms)):
        session = world.open("alice", key)
        close = world.agreed(session, {BOB: kept(20_000)}, key, (Rating(BOB, 1000),))
        world.do("alice", close, after_ms=wait)
    evidence = _rated(world, BOB)
    cap = PARAMS.reputation_rater_cap << 16
    assert evidence is not None
    assert evidence.successes == cap + (cap * PARAMS.reputation_decay >> 16)


@pytest.mark.parametrize("providers", [(BOB, BOB), tuple(sorted((BOB, CAROL), reverse=True)), (b"p" * 20,)])
def test_ratings_out_of_order_or_of_strangers_are_refused(
    world: World, session: bytes, providers: tuple[bytes, ...]
) -> None:
    ratings = tuple(Rating(provider, 1000) for provider in providers)
    refused(world.send("alice", closing(session, ratings=ratings)), refusals.BadValue)


def test_the_refund_is_exact_over_a_whole_life(world: World, session: bytes) -> None:
    world.do("alice", world.agreed(session, {BOB: kept(777)}))
    spent = world.session(session).spent_udllm
    assert world.balance("alice") == FUNDS_UDLLM - spent - 2 * FEE_UDLLM
