"""What works through an offer book weighs by its size: fees, gas and blocks, and what is not worked through twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllm_protocol import refusals, state_keys
from dllm_protocol.actions import ClaimVoucher, CloseSession, OpenSession, SetOffer, Transfer, WithdrawOffer
from dllm_protocol.assignment import RankedBook
from dllm_protocol.encoding import Record
from dllm_protocol.offer_book import BookEntry, OfferBook, book_hash
from dllm_protocol.params import BLOCK_WEIGHT_MAX, least_fee, weight_of
from dllm_protocol.records import MAX_OFFERS, Offer, OfferBookHead, ProviderLoad, Route
from dllm_protocol.transaction import Transaction
from full_node.consensus.cometbft.proposals import fitting, order_by_priority, reason_to_reject
from full_node.state_machine.books import view as books
from full_node.state_machine.sessions import view as sessions
from full_node.state_machine.state import Overlay
from tests.full_node.state_machine.world import (
    LAYERS,
    MODEL,
    PARAMS,
    PRICES,
    World,
    address,
    kept,
    provider_id,
    refused,
)

BOB, CAROL = provider_id("bob"), provider_id("carol")
AMPLE_UDLLM = 1_000_000
PER_OFFER = {entry.action: entry.weight_per_offer for entry in PARAMS.fees.action_weights}
OPENING_PER_OFFER = PER_OFFER[30]


@pytest.fixture
def world() -> World:
    made = World()
    made.provide("bob")
    made.provide("carol")
    return made


def enlarge(world: World, offers: int, *, full: int = 0) -> None:
    """Have the newest book hold so many offers more, of strangers; the first ``full`` of them cheaper and full."""
    state = world.overlay()
    head, book = world.head(), world.book()
    provider, offer = world.provider("bob"), world.record(state_keys.offer(MODEL, BOB), Offer)
    entries = list(book.entries)
    for number in range(offers):
        stranger = number.to_bytes(4, "big") * 5
        prices = replace(PRICES, kept_udllm=PRICES.kept_udllm - 1) if number < full else PRICES
        entries.append(BookEntry(stranger, stranger, 0, LAYERS, prices, 4, 1_000_000))
        busy = 4 if number < full else 0
        state.write(state_keys.provider(stranger), replace(provider, owner=stranger, bond_udllm=0))
        state.write(
            state_keys.offer(MODEL, stranger),
            replace(offer, provider=stranger, prices=prices, open_sessions=busy),
        )
    made = OfferBook(MODEL, head.epoch, tuple(sorted(entries, key=lambda one: one.provider)))
    enlarged = replace(head, offers=len(entries), book_hash=book_hash(made))
    state.write(state_keys.offer_list(MODEL, head.epoch), made)
    state.write(state_keys.latest_offer_book(MODEL), enlarged)
    world.reader.apply(state.changes().items())
    world.app.note_committed(world.height, world.time_ms * 1_000_000)


def paid_in_full(world: World, who: str, *actions: Record, offers: int) -> Transaction:
    """A transaction with exactly the least fee, over a book of so many offers."""
    fee_udllm = 0
    for _ in range(4):
        made = world.sign(who, *actions, fee_udllm=fee_udllm)
        fee_udllm = least_fee(PARAMS.fees, made, len(made.encode()), lambda _: offers)
    return made


@pytest.mark.parametrize(
    ("who", "action"),
    [
        ("alice", OpenSession(MODEL, b"k" * 32, PRICES, (), 1)),
        ("bob", SetOffer(BOB, MODEL, 0, LAYERS, PRICES, 4)),
        ("bob", WithdrawOffer(BOB, MODEL)),
    ],
)
def test_the_least_fee_and_gas_follow_the_newest_books_size(world: World, who: str, action: Record) -> None:
    enlarge(world, 40)
    below = paid_in_full(world, who, action, offers=20)
    exact = paid_in_full(world, who, action, offers=42)
    refused(world.check(below), refusals.FeeTooLow, exact.body.fee_udllm)
    outcome = world.block(below)
    refused(outcome.results[0], refusals.FeeTooLow)
    assert outcome.unpaid == (0,)

    raw = exact.encode()
    weight = weight_of(PARAMS.fees, exact, len(raw), lambda _: 42)
    said, appraised = world.app.check_tx(raw), world.app.appraise(raw)
    assert appraised is not None
    assert said.code == 0, said.log
    assert said.gas_wanted == appraised.weight == weight
    result = world.block(exact).results[0]
    assert (result.gas_wanted, result.gas_used) == (weight, weight)


def test_a_book_that_is_not_frozen_yet_weighs_nothing() -> None:
    world = World()
    made = paid_in_full(world, "alice", OpenSession(MODEL, b"k" * 32, PRICES, (), 1), offers=0)
    refused(world.block(made).results[0], refusals.NoRoute)


ACTS = st.sampled_from(["open", "offer", "withdraw", "transfer"])


@settings(max_examples=25)
@given(acts=st.lists(ACTS, min_size=1, max_size=6), waiting=st.lists(ACTS, max_size=4))
def test_the_weight_in_a_block_is_the_one_before_it_whatever_comes_first(
    acts: list[str], waiting: list[str]
) -> None:
    """What is judged before a block, whatever waits, is what is charged in it, though offers change on the way."""
    world = World()
    world.provide("bob")
    world.provide("carol")
    made = [act(world, kind, place, 0).encode() for place, kind in enumerate(acts)]
    before = [world.app.appraise(raw) for raw in made]
    for place, kind in enumerate(waiting):
        world.app.check_tx(act(world, kind, place, 100).encode())
    assert [world.app.appraise(raw) for raw in made] == before
    results = world.block(*made).results
    # The weight of those whose sequence did not fit is charged to nobody.
    assert [one.gas_used for one in results if one.gas_used] == [
        one.weight for one, result in zip(before, results, strict=True) if one is not None and result.gas_used
    ]
    assert any(result.gas_used for result in results)


def act(world: World, kind: str, place: int, salt: int) -> Transaction:
    sequence = world.account("bob").sequence + place
    action: Record = {
        "open": OpenSession(MODEL, bytes([place + salt]) * 32, PRICES, (), 1_000),
        "offer": SetOffer(BOB, MODEL, 0, LAYERS, PRICES, 1 + place),
        "withdraw": WithdrawOffer(BOB, MODEL),
        "transfer": Transfer(address("alice"), 1),
    }[kind]
    return world.sign("bob", action, sequence=sequence)


def test_an_honest_block_of_openings_and_the_heaviest_allowed_stay_within_the_bound(world: World) -> None:
    enlarge(world, 2_000)
    openings = [
        world.sign(
            "alice",
            OpenSession(MODEL, place.to_bytes(32, "big"), PRICES, (), 1),
            sequence=world.account("alice").sequence + place,
            fee_udllm=AMPLE_UDLLM,
        ).encode()
        for place in range(80)
    ]
    assert "weight" in reason_to_reject(openings, world.app.appraise)
    taken = fitting(order_by_priority(openings, world.app.appraise), 1 << 22)
    assert 0 < len(taken) < len(openings)
    assert len(taken) * 2_002 * OPENING_PER_OFFER <= BLOCK_WEIGHT_MAX
    assert reason_to_reject(taken, world.app.appraise) == ""


def test_what_weighs_more_than_a_whole_block_is_refused_at_once(world: World) -> None:
    state = world.overlay()
    state.write(state_keys.latest_offer_book(MODEL), replace(world.head(), offers=MAX_OFFERS))
    world.reader.apply(state.changes().items())
    world.app.note_committed(world.height, world.time_ms * 1_000_000)
    actions = [OpenSession(MODEL, bytes([number]) * 32, PRICES, (), 1) for number in (1, 2)]
    made = world.sign("alice", *actions, fee_udllm=AMPLE_UDLLM)
    refused(world.check(made), refusals.TooLarge, BLOCK_WEIGHT_MAX)
    assert world.block(made).unpaid == (0,)


# --- what is not worked through again


class Reads:
    """A state that notes which keys it is asked."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.keys: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        self.keys.append(key)
        return self._world.reader.get(key)


def ranked(state: Reads) -> RankedBook:
    made = books.ranked(Overlay(state), MODEL, layers=LAYERS, penalty_ppm=PARAMS.reputation_penalty_ppm)
    assert made is not None
    return made


def test_a_book_is_read_and_ranked_once_until_it_is_frozen_anew(world: World) -> None:
    enlarge(world, 7)
    state = Reads(world)
    first = ranked(state)
    list_key = state_keys.offer_list(MODEL, world.head().epoch)
    state.keys.clear()
    assert ranked(state) is first
    assert list_key not in state.keys

    world.provide("dave")
    world.do("erin", Transfer(address("alice"), 1), after_ms=PARAMS.epoch_ms)
    assert ranked(Reads(world)).book_hash == world.head().book_hash != first.book_hash


def test_ranked_books_that_are_kept_are_bounded_by_their_offers() -> None:
    kept_books = books.RankedBooks(offers_max=100)
    made = [RankedBook("m", 1, bytes([number]) * 32, 4, 40, ()) for number in range(4)]
    for one in made:
        kept_books.keep(one, 0)
    assert [kept_books.find(one.book_hash, 4, 0) is not None for one in made] == [False, False, True, True]
    kept_books.find(made[2].book_hash, 4, 0)
    huge = replace(made[0], offers=90)
    kept_books.keep(huge, 0)
    assert kept_books.find(huge.book_hash, 4, 0) is huge, "the newest one is kept, however large"
    assert kept_books.find(made[3].book_hash, 4, 0) is None


def test_books_without_offers_take_room_too() -> None:
    kept_books = books.RankedBooks(offers_max=3)
    made = [RankedBook("m", 1, bytes([number]) * 32, 4, 0, ()) for number in range(5)]
    for one in made:
        kept_books.keep(one, 0)
    assert [kept_books.find(one.book_hash, 4, 0) is not None for one in made] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_a_route_names_only_those_that_were_full_and_closing_reads_none_of_them(world: World) -> None:
    enlarge(world, 300, full=290)
    result = world.block(
        world.sign("alice", world.opening("session 1"), fee_udllm=AMPLE_UDLLM),
    ).results[0]
    assert result.code == 0, result.log
    route = world.route(result.data)
    assert len(route.loads) == 290
    assert all(isinstance(load, ProviderLoad) and load.open_sessions == 4 for load in route.loads)

    bare = sessions.route(world.overlay(), result.data)
    assert bare == replace(route, loads=())
    provider = route.stages[0].stage.provider
    voucher = world.voucher(result.data, 1, {provider: kept(3)})
    assert world.do("bob", ClaimVoucher(voucher)).code == 0
    assert world.do("alice", CloseSession(result.data, None, (), ())).code == 0
    assert world.record(state_keys.route(result.data), Route) == route


def test_an_offer_that_changes_its_terms_writes_no_list(world: World) -> None:
    live = world.reader.get(state_keys.live_offers(MODEL))
    world.do("bob", SetOffer(BOB, MODEL, 0, LAYERS, PRICES, 9))
    assert world.last is not None
    assert state_keys.live_offers(MODEL) not in world.last.changes
    assert state_keys.offers_of(BOB) not in world.last.changes
    assert world.reader.get(state_keys.live_offers(MODEL)) == live
    assert isinstance(world.head(), OfferBookHead)
    assert world.head().stale == 1

    world.do("bob", WithdrawOffer(BOB, MODEL))
    world.provide("bob")
    assert world.reader.get(state_keys.live_offers(MODEL)) == live, "listed again after it was withdrawn"
