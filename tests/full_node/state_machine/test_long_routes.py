"""Sessions over several stages, from the offers of slices to the last refund, on the real application."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol import refusals, state_keys
from dllm_protocol.actions import ClaimVoucher, CloseSession, Rating, SetOffer, Transfer, WithdrawOffer
from dllm_protocol.assignment import check_route, leg_entries, loads_of, make_route, route_hash
from dllm_protocol.model_manifest import manifest_hash
from dllm_protocol.params import Params
from dllm_protocol.pricing import RowCounts, RowPrices, client_price, cost_of_rows, part_of
from dllm_protocol.ranked_book import rank, rules_of
from dllm_protocol.records import (
    MODEL_ACTIVE,
    SESSION_CLOSED,
    SESSION_CLOSING,
    ModelRecord,
    Offer,
    Reputation,
)
from dllm_protocol.session.ledger import Ledger, fresh_state
from dllm_protocol.voucher import ROLE_STAGE, ROLE_STANDBY, SignedAck, SignedVoucher, sign_voucher
from full_node.state_machine.providers.rules import check_offer
from full_node.state_machine.state import read
from tests.full_node.state_machine.world import (
    FEE_UDLLM,
    FUNDS_UDLLM,
    LAYERS,
    MODEL,
    PARAMS,
    RESERVE,
    World,
    address,
    kept,
    make_manifest,
    provider_id,
    refused,
    signer,
)

BOB, CAROL, DAVE, ERIN = (provider_id(name) for name in ("bob", "carol", "dave", "erin"))
A_LAYER = RowPrices(100, 1_000, 1_000, 50)
DEARER = RowPrices(120, 1_200, 1_200, 60)
DEPOSIT_UDLLM = 1_000_000
MANIFEST = make_manifest(chunked=True)


def asks(layers: int, a_layer: RowPrices = A_LAYER) -> RowPrices:
    """What a slice asks at so much a layer."""
    return part_of(a_layer, layers, 1)


@pytest.fixture
def world() -> World:
    """Bob, carol and dave serve [0, 1), [1, 3) and [3, 4), erin stands by for carol; alice asks."""
    return sliced_world()


def sliced_world(params: Params = PARAMS) -> World:
    """The world of these tests."""
    made = World(params, chunked=True)
    made.provide("bob", asks(1), layers=(0, 1))
    made.provide("carol", asks(2), layers=(1, 3))
    made.provide("dave", asks(1), layers=(3, 4))
    made.provide("erin", asks(2, DEARER), layers=(1, 3))
    next_epoch(made)
    return made


def next_epoch(world: World) -> None:
    """Let an epoch pass, so that the book is frozen anew."""
    world.do("erin", Transfer(address("bob"), 1), after_ms=PARAMS.epoch_ms)


@pytest.fixture
def session(world: World) -> bytes:
    return world.open("alice", deposit_udllm=DEPOSIT_UDLLM)


def open_on(world: World, provider: bytes) -> int:
    """How many sessions an offer carries."""
    return world.record(state_keys.offer(MODEL, provider), Offer).open_sessions


def stages_of(world: World, session: bytes) -> list[tuple[bytes, bytes | None]]:
    return [
        (one.stage.provider, one.standby.provider if one.standby else None)
        for one in world.route(session).stages
    ]


# --- opening


def test_a_session_gets_the_cover_that_covers_all_layers_with_a_standby_where_there_is_one(
    world: World, session: bytes
) -> None:
    assert stages_of(world, session) == [(BOB, None), (CAROL, ERIN), (DAVE, None)]
    route = world.route(session)
    assert [(one.stage.first_layer, one.stage.end_layer) for one in route.stages] == [(0, 1), (1, 3), (3, 4)]
    assert {one: role for one, (_, role) in leg_entries(route).items()} == {
        BOB: ROLE_STAGE,
        CAROL: ROLE_STAGE,
        DAVE: ROLE_STAGE,
        ERIN: ROLE_STANDBY,
    }
    assert [open_on(world, one) for one in (BOB, CAROL, DAVE, ERIN)] == [1, 1, 1, 1]
    assert world.session(session).route_hash == route_hash(route)


def test_everyone_can_compute_the_route_again_and_no_other_passes(world: World, session: bytes) -> None:
    route = world.route(session)
    again = make_route(
        rank(world.book(), rules_of(MANIFEST, PARAMS)),
        account=address("alice"),
        session_key=signer("session 1").public_key,
        manifest_hash=manifest_hash(MANIFEST),
        max_prices=RESERVE,
        exclusions=(),
        load_of=loads_of(route),
    )
    check_route(route, again)
    assert route == again


def test_a_stage_that_has_no_room_is_taken_by_another_owner(world: World) -> None:
    world.provide("carol", asks(2), layers=(1, 3), capacity_sessions=1)
    first, second = world.open("alice", "session 1"), world.open("alice", "session 2")
    assert stages_of(world, first)[1] == (CAROL, ERIN)
    assert stages_of(world, second)[1] == (ERIN, None)
    assert [load.provider for load in world.route(second).loads] == [CAROL]


def test_a_stage_that_was_withdrawn_or_moved_in_the_epoch_breaks_its_covers_only(world: World) -> None:
    world.do("carol", WithdrawOffer(CAROL, MODEL))
    assert stages_of(world, world.open("alice"))[1] == (ERIN, None)
    world.provide("erin", asks(1), layers=(1, 2))
    refused(world.send("alice", world.opening("session 2")), refusals.NoRoute, MODEL, f"[0, {LAYERS})")


def test_one_machine_serves_where_a_cover_saves_no_more_than_its_hops_count() -> None:
    """Three stages ask 4,400 for 1,000 prompt and 1,000 kept rows; two hops count as a tenth of 44,000."""
    assert PARAMS.stage_penalty_ppm == 50_000
    world = sliced_world(replace(PARAMS, reputation_penalty_ppm=0))
    for kept_udllm, served_whole in ((7_600, True), (7_601, False)):
        world.provide("erin", RowPrices(1_200, kept_udllm, kept_udllm, 100))
        next_epoch(world)
        found = stages_of(world, world.open("alice", f"session {kept_udllm}"))
        assert (found == [(ERIN, None)]) == served_whole
        assert (len(found) == 3) != served_whole


def test_a_session_below_the_ask_of_one_stage_has_no_route(world: World) -> None:
    limit = replace(asks(LAYERS), kept_udllm=asks(LAYERS).kept_udllm - 1)
    refused(world.send("alice", world.opening("session 1", max_prices=limit)), refusals.NoRoute)
    world.open("alice", "session 2", max_prices=asks(LAYERS))


# --- paying


def test_one_voucher_pays_every_leg_for_its_rows_through_its_layers(world: World, session: bytes) -> None:
    before = {name: world.balance(name) for name in ("bob", "carol", "dave", "erin")}
    rows = RowCounts(1_000, 2_000, 0, 0)
    voucher = world.voucher(session, 1, dict.fromkeys((BOB, CAROL, DAVE), rows))
    world.do("alice", ClaimVoucher(voucher))

    paid = {name: world.balance(name) - before[name] for name in before}
    assert paid == {"bob": 2_100, "carol": 4_200, "dave": 2_100, "erin": 0}
    spent = client_price(8_400, PARAMS.community_share_ppm)
    assert (world.session(session).spent_udllm, world.pool()) == (spent, spent - 8_400)
    refused(world.send("bob", ClaimVoucher(voucher)), refusals.VoucherNotHigher)


def test_a_leg_at_the_price_of_the_whole_model_is_refused(world: World, session: bytes) -> None:
    voucher = world.voucher(session, 1, {CAROL: kept(1_000)}).voucher
    whole = cost_of_rows(asks(LAYERS), kept(1_000))
    wrong = replace(voucher, legs=(replace(voucher.legs[0], cumulative_udllm=whole),))
    result = world.send("alice", ClaimVoucher(sign_voucher(signer("session 1"), wrong)))
    refused(result, refusals.VoucherMispriced, whole, 2_000)


def test_all_legs_together_stay_within_the_deposit(world: World) -> None:
    session = world.open("alice", deposit_udllm=4_000)
    alone = world.voucher(session, 1, {CAROL: kept(1_000)})
    together = world.voucher(session, 2, dict.fromkeys((BOB, CAROL, DAVE), kept(1_000)))
    refused(world.send("bob", ClaimVoucher(together)), refusals.DepositExceeded, 4_000)
    world.do("bob", ClaimVoucher(alone))
    assert world.session(session).spent_udllm == client_price(2_000, PARAMS.community_share_ppm)


# --- a leg that dies


class Client:
    """Alice's ledger over a session's route, and providers that acknowledge what they are told to."""

    def __init__(self, world: World, session: bytes) -> None:
        record = world.session(session)
        self.world = world
        self.ledger = Ledger(
            chain_id=world.chain_id,
            route=world.route(session),
            session_key=signer("session 1"),
            deposit_udllm=record.deposit_udllm,
            community_share_ppm=record.community_share_ppm,
            state=fresh_state(session),
        )

    def promise(self, *providers: bytes, rows: RowCounts) -> SignedVoucher:
        """A voucher that covers rows more of each of these legs."""
        voucher = None
        for provider in providers:
            voucher = self.ledger.use(provider, rows, bytes(32)) or voucher
        assert voucher is not None
        return voucher

    def acked(self, owner: str, voucher: SignedVoucher) -> SignedAck:
        """An owner's provider acknowledges."""
        ack = self.world.ack(owner, voucher.voucher)
        self.ledger.take_ack(ack, signer(f"{owner}'s service").public_key)
        return ack


def test_a_dead_leg_stops_at_what_it_acknowledged_and_replay_is_paid_as_quoted(
    world: World, session: bytes
) -> None:
    before = {name: world.balance(name) for name in ("bob", "carol", "dave", "erin")}
    client = Client(world, session)
    prompt, token = RowCounts(1_000, 0, 0, 0), kept(1_000)
    first = client.promise(BOB, CAROL, DAVE, rows=prompt)
    for owner in ("bob", "carol", "dave"):
        client.acked(owner, first)
    second = client.promise(BOB, CAROL, DAVE, rows=token)
    for owner in ("bob", "dave"):
        client.acked(owner, second)

    # Carol dies. Erin decodes again what carol had, then goes on.
    client.ledger.abandon(CAROL)
    third = client.promise(ERIN, rows=RowCounts(0, 1_000, 0, 1_000))
    legs = {leg.provider: leg for leg in third.voucher.legs}
    assert legs[CAROL].rows == prompt
    assert legs[ERIN].payees[0].role == ROLE_STANDBY
    world.do("bob", ClaimVoucher(third))
    paid = {name: world.balance(name) - before[name] for name in before}
    assert paid["carol"] == cost_of_rows(asks(2), prompt) == 200
    assert paid["erin"] == cost_of_rows(asks(2, DEARER), RowCounts(0, 1_000, 0, 1_000)) == 2_520
    assert (paid["bob"], paid["dave"]) == (1_100 - FEE_UDLLM, 1_100)

    # She was only cut off: the window that she holds a voucher for is hers, and others lose nothing by it.
    world.do("carol", ClaimVoucher(second))
    assert world.balance("carol") - before["carol"] == 2_200 - FEE_UDLLM
    paid_udllm = 1_100 + 2_200 + 1_100 + 2_520
    assert world.session(session).spent_udllm == client_price(paid_udllm, PARAMS.community_share_ppm)

    # Without her ack of the final voucher closing takes the grace; then the rest comes back.
    alice = world.balance("alice")
    final = client.ledger.finish(bytes(32))
    acks = [client.acked(owner, final) for owner in ("bob", "dave", "erin")]
    ordered = tuple(sorted(acks, key=lambda one: one.ack.provider))
    world.do("alice", CloseSession(session, final, ordered, ()))
    assert world.session(session).status == SESSION_CLOSING
    world.do("bob", CloseSession(session, None, (), ()), after_ms=PARAMS.close_grace_ms)
    closed = world.session(session)
    assert closed.status == SESSION_CLOSED
    assert closed.spent_udllm == client_price(paid_udllm, PARAMS.community_share_ppm)
    assert world.balance("alice") == alice - FEE_UDLLM + DEPOSIT_UDLLM - closed.spent_udllm
    assert world.balance("alice") == FUNDS_UDLLM - 2 * FEE_UDLLM - closed.spent_udllm
    assert [open_on(world, one) for one in (BOB, CAROL, DAVE, ERIN)] == [0, 0, 0, 0]


# --- closing


def test_every_stage_and_standby_has_to_acknowledge_the_end(world: World, session: bytes) -> None:
    agreed = world.agreed(session, dict.fromkeys((BOB, CAROL, DAVE), kept(1_000)))
    assert len(agreed.acks) == 4
    without_one = replace(agreed, acks=agreed.acks[1:])
    world.do("alice", without_one)
    assert world.session(session).status == SESSION_CLOSING
    world.do("alice", agreed)
    assert world.session(session).status == SESSION_CLOSED
    assert world.balance("alice") == FUNDS_UDLLM - 3 * FEE_UDLLM - world.session(session).spent_udllm


def test_each_stage_is_rated_by_what_it_was_paid(world: World, session: bytes) -> None:
    ratings = tuple(Rating(one, 1000) for one in sorted((BOB, CAROL, DAVE, ERIN)))
    rows = {BOB: kept(1_000), CAROL: kept(2_000), DAVE: kept(0), ERIN: kept(1_000)}
    world.do("alice", world.agreed(session, rows, ratings=ratings))

    def weight(provider: bytes) -> int:
        found = read(world.reader, state_keys.reputation(provider, MODEL), Reputation)
        return (found.successes + found.failures) >> 16 if found else 0

    assert [weight(one) for one in (BOB, CAROL, DAVE, ERIN)] == [1, 4, 0, 0], "a takeover is not rated"


def test_a_party_of_any_stage_may_begin_to_close(world: World, session: bytes) -> None:
    world.do("dave", CloseSession(session, None, (), ()))
    assert world.session(session).status == SESSION_CLOSING


# --- offers of slices


def test_a_model_in_one_file_is_offered_whole_only() -> None:
    world = World()
    result = world.send(
        "bob", world.registration("bob"), SetOffer(BOB, MODEL, 0, LAYERS - 1, RowPrices(1, 1, 1, 1), 4)
    )
    refused(result, refusals.BadValue, f"[0, {LAYERS - 1})", f"[0, {LAYERS})", "one file")


@pytest.mark.parametrize("kind", ["prompt_udllm", "kept_udllm", "drafted_udllm", "replayed_udllm"])
def test_a_slice_asks_its_layers_part_of_the_reserve_at_most(world: World, kind: str) -> None:
    most = part_of(RESERVE, 3, LAYERS)
    dear = replace(most, **{kind: getattr(most, kind) + 1})
    result = world.send("bob", SetOffer(BOB, MODEL, 1, 4, dear, 4))
    refused(result, refusals.PriceAboveReserve, f"3 of {LAYERS} layers")
    world.do("bob", SetOffer(BOB, MODEL, 1, 4, most, 4))


def test_a_slice_is_not_so_thin_that_routes_outgrow_their_record() -> None:
    model = ModelRecord(address("erin"), replace(MANIFEST, layers=200), 1, MODEL_ACTIVE)
    thin = SetOffer(BOB, MODEL, 10, 21, RowPrices(1, 1, 1, 1), 4)
    with pytest.raises(refusals.BadValue, match="11 layers are offered, of 200 at least 12"):
        check_offer(thin, model)
    check_offer(replace(thin, end_layer=22), model)


def test_a_slice_that_completes_the_first_cover_is_frozen_at_once_and_later_ones_wait() -> None:
    world = World(chunked=True)
    world.provide("bob", asks(1), layers=(0, 1))
    world.provide("carol", asks(2), layers=(1, 3))
    refused(world.send("alice", world.opening("session 1")), refusals.NoRoute, MODEL)
    world.provide("dave", asks(1), layers=(3, 4))
    assert stages_of(world, world.open("alice")) == [(BOB, None), (CAROL, None), (DAVE, None)]
    world.provide("erin", asks(2, DEARER), layers=(1, 3))
    assert (world.head().offers, world.head().stale) == (3, 1)
    next_epoch(world)
    assert (world.head().offers, world.head().stale) == (4, 0)
