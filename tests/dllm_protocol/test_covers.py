"""Routes of several stages: the cheapest exact cover, held against every exact cover that there is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol import assignment
from dllm_protocol.assignment import Assigned, assign, check_route, leg_entries, loads_of, make_route
from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.offer_book import BookEntry, OfferBook
from dllm_protocol.pricing import RowPrices, part_of
from dllm_protocol.ranked_book import RouteRules, effective_cost, rank
from dllm_protocol.records import RouteStage
from tests.vectors.record_formats import ACCOUNT, SESSION_KEY

LAYERS = 6
SEED = b"s" * 32
LIMIT = RowPrices(600, 600, 600, 600)
NO_STAGE_COST = RouteRules(LAYERS, 1_000_000, 0)


def entry(provider: int, owner: int, first: int, end: int, price: int, **changes: Any) -> BookEntry:
    """An offer of layers [first, end) with room for two sessions and full standing."""
    prices = RowPrices(price, price, price, price)
    made = BookEntry(bytes([provider]) * 20, bytes([owner]) * 20, first, end, prices, 2, 1_000_000)
    return replace(made, **changes)


@dataclass(frozen=True)
class Market:
    """Offers, and what a session over them wants."""

    entries: tuple[BookEntry, ...]
    rules: RouteRules = NO_STAGE_COST
    limit: RowPrices = LIMIT
    exclusions: tuple[bytes, ...] = ()
    loads: Mapping[bytes, int] = field(default_factory=dict)

    def book(self) -> OfferBook:
        return OfferBook("m", 1, tuple(sorted(self.entries, key=lambda one: one.provider)))

    def load_of(self, one: BookEntry) -> int:
        return self.loads.get(one.provider, 0)

    def assigned(self, seed: bytes = SEED) -> Assigned:
        return assign(
            rank(self.book(), self.rules),
            max_prices=self.limit,
            exclusions=self.exclusions,
            load_of=self.load_of,
            seed=seed,
        )

    def chosen(self, seed: bytes = SEED) -> list[tuple[int, int | None]]:
        """First bytes of each stage's provider and of its standby's."""
        return [
            (one.stage.provider[0], one.standby.provider[0] if one.standby else None)
            for one in self.assigned(seed).stages
        ]


def market(*entries: BookEntry, **changes: Any) -> Market:
    return Market(entries, **changes)


def charging(stage_cost_udllm: int) -> RouteRules:
    """Rules under which each stage beyond the first counts as dear as so many udllm."""
    return RouteRules(LAYERS, 1_000_000, stage_cost_udllm * 1_000_000)


# --- by example


def test_slices_that_cover_all_layers_make_a_route_with_a_standby_each() -> None:
    made = market(
        entry(1, 1, 0, 2, 10),
        entry(2, 2, 2, 6, 20),
        entry(3, 3, 0, 2, 90),
        entry(4, 2, 2, 6, 21),
        entry(5, 5, 2, 6, 22),
    )
    assert made.chosen() == [(1, 3), (2, 5)]


def test_slices_with_a_gap_or_an_overlap_make_no_route() -> None:
    assert market(entry(1, 1, 0, 3, 1), entry(2, 2, 4, 6, 1)).chosen() == []
    assert market(entry(1, 1, 0, 4, 1), entry(2, 2, 3, 6, 1)).chosen() == []
    assert market(entry(1, 1, 1, 6, 1), entry(2, 2, 0, 5, 1)).chosen() == []
    assert market().chosen() == []


def test_one_owner_may_have_several_stages_and_stands_by_for_another() -> None:
    made = market(entry(1, 1, 0, 3, 10), entry(2, 1, 3, 6, 10), entry(3, 2, 3, 6, 30), entry(4, 2, 0, 3, 30))
    assert made.chosen() == [(1, 4), (2, 3)]
    assert market(entry(1, 1, 0, 3, 10), entry(2, 2, 3, 6, 10), entry(3, 1, 3, 6, 30)).chosen() == [
        (1, None),
        (2, 3),
    ]


def test_a_model_that_fits_one_machine_stays_on_one_unless_several_are_cheaper_by_more_than_their_hops() -> (
    None
):
    two = (entry(1, 1, 0, 3, 40), entry(2, 2, 3, 6, 40))
    whole = entry(3, 3, 0, 6, 100)
    assert market(*two, whole).chosen() == [(1, None), (2, None)]
    assert market(*two, whole, rules=charging(39)).chosen() == [(1, None), (2, None)]
    assert market(*two, whole, rules=charging(40)).chosen() == [(3, None)], "as dear: fewer stages"
    assert market(*two, whole, rules=charging(41)).chosen() == [(3, None)]
    assert market(*two, replace(whole, prices=RowPrices(80, 80, 0, 0))).chosen() == [(3, None)]


def test_low_standing_of_one_stage_turns_the_whole_cover_away() -> None:
    doubtful = entry(2, 2, 3, 6, 40, reputation_ppm=0)
    assert market(entry(1, 1, 0, 3, 40), doubtful, entry(3, 3, 0, 6, 100)).chosen() == [(3, None)]


def test_each_stage_asks_its_layers_part_of_the_limit_at_most() -> None:
    """So that a route never asks more than the client allowed for the model."""
    limit = RowPrices(100, 100, 100, 100)
    assert part_of(limit, 2, LAYERS) == RowPrices(33, 33, 33, 33)
    assert market(entry(1, 1, 0, 2, 33), entry(2, 2, 2, 6, 66), limit=limit).chosen() == [
        (1, None),
        (2, None),
    ]
    assert market(entry(1, 1, 0, 2, 34), entry(2, 2, 2, 6, 1), limit=limit).chosen() == []


def test_where_a_stage_is_full_the_next_best_cover_serves_and_the_full_offer_is_named() -> None:
    entries = (entry(1, 1, 0, 2, 10), entry(2, 2, 2, 6, 10), entry(3, 3, 0, 3, 15), entry(4, 4, 3, 6, 15))
    found = market(*entries, loads={bytes([2]) * 20: 2}).assigned()
    assert [one.stage.provider[0] for one in found.stages] == [3, 4]
    assert [(load.provider[0], load.open_sessions) for load in found.passed_over] == [(2, 2)]
    far_away = market(*entries, loads={bytes([4]) * 20: 7}).assigned()
    assert [one.stage.provider[0] for one in far_away.stages] == [1, 2]
    assert far_away.passed_over == (), "who is not in the way is not asked"


def test_slices_so_thin_that_covers_would_be_too_long_do_not_count() -> None:
    """Of 34 layers at least 3 must be offered, else there could be 17 stages."""
    ample = RowPrices(10**6, 10**6, 10**6, 10**6)
    rules = RouteRules(34, 0, 0)
    thin = [entry(n + 1, 1, n, n + 2, 1) for n in range(0, 34, 2)]
    assert market(*thin, rules=rules, limit=ample).chosen() == []
    wide = [entry(n + 1, 1, n, n + 3, 1) for n in range(0, 30, 3)]
    assert (
        market(*wide, entry(90, 1, 30, 32, 1), entry(91, 1, 32, 34, 1), rules=rules, limit=ample).chosen()
        == []
    )
    assert len(market(*wide, entry(90, 1, 30, 34, 1), rules=rules, limit=ample).chosen()) == 11


# --- against every exact cover


def fitting(made: Market) -> list[BookEntry]:
    """Offers that a route of this session may use."""
    return [
        one
        for one in made.entries
        if one.provider not in made.exclusions
        and one.prices.within(part_of(made.limit, one.end_layer - one.first_layer, LAYERS))
        and made.load_of(one) < one.capacity_sessions
    ]


def covers(offers: Sequence[BookEntry], at: int = 0) -> Iterator[tuple[BookEntry, ...]]:
    """All covers from a layer to the last one."""
    if at == LAYERS:
        yield ()
        return
    for one in offers:
        if one.first_layer == at:
            for rest in covers(offers, one.end_layer):
                yield (one, *rest)


def by_the_rule(made: Market, seed: bytes) -> tuple[RouteStage, ...]:
    """The rule as docs/protocol states it: all covers are looked at."""
    offers = fitting(made)

    def cost(one: BookEntry) -> int:
        return effective_cost(one, made.rules.penalty_ppm)

    def tie(one: BookEntry) -> bytes:
        return tagged_hash(Tag.ROUTE_TIE, seed, one.provider)

    ordered = sorted(
        covers(offers),
        key=lambda cover: (
            sum(map(cost, cover)) + made.rules.stage_cost * (len(cover) - 1),
            len(cover),
            [tie(one) for one in cover],
        ),
    )
    if not ordered:
        return ()
    stages = []
    for stage in ordered[0]:
        others = [
            one
            for one in offers
            if (one.first_layer, one.end_layer) == (stage.first_layer, stage.end_layer)
            and one.owner != stage.owner
        ]
        stages.append(RouteStage(stage, min(others, key=lambda one: (cost(one), tie(one)), default=None)))
    return tuple(stages)


SLICES = [(first, end) for first in range(LAYERS) for end in range(first + 1, LAYERS + 1)]
USEFUL = [(0, 6), (0, 3), (3, 6), (0, 2), (2, 4), (4, 6), (2, 6), (0, 4)]


@st.composite
def markets(draw: st.DrawFn) -> Market:
    """Many offers of equal cost, some full, some of low standing, some left out, some too dear."""
    offers = draw(
        st.lists(
            st.tuples(
                st.one_of(st.sampled_from(USEFUL), st.sampled_from(SLICES)),
                st.integers(1, 3),  # owner
                st.sampled_from([10, 10, 20, 101]),  # price a layer
                st.sampled_from([0, 500_000, 1_000_000, 1_000_000]),  # reputation
                st.integers(0, 2),  # capacity
                st.sampled_from([0, 0, 1, 2]),  # load
                st.sampled_from([False, False, False, True]),  # excluded
            ),
            max_size=18,
        )
    )
    entries, exclusions, loads = [], [], {}
    for number, (layers, owner, price, reputation, room, load, excluded) in enumerate(offers, 1):
        asked = price * (layers[1] - layers[0])
        made = entry(number, owner, *layers, asked, reputation_ppm=reputation, capacity_sessions=room)
        entries.append(made)
        loads[made.provider] = load
        if excluded:
            exclusions.append(made.provider)
    rules = charging(draw(st.sampled_from([0, 0, 10, 40])))
    return Market(tuple(entries), rules, LIMIT, tuple(exclusions), loads)


SEEDS = st.binary(min_size=32, max_size=32)


def test_equal_covers_are_ordered_by_the_seed_stage_by_stage() -> None:
    """Three pairs of slices that cost the same, two offers of each slice."""
    slices = [(0, 2), (2, 6), (0, 3), (3, 6), (0, 4), (4, 6)] * 2
    made = market(*(entry(n, n, a, b, 10 * (b - a)) for n, (a, b) in enumerate(slices, 1)))
    seeds = [bytes([number]) * 32 for number in range(60)]
    assert all(made.assigned(seed).stages == by_the_rule(made, seed) for seed in seeds)
    firsts = {made.chosen(seed)[0][0] for seed in seeds}
    assert firsts == {1, 3, 5, 7, 9, 11}


@given(markets(), SEEDS)
def test_the_route_is_the_cheapest_of_all_exact_covers(made: Market, seed: bytes) -> None:
    found = made.assigned(seed)
    assert found.stages == by_the_rule(made, seed)
    named = [load.provider for load in found.passed_over]
    assert named == sorted(set(named))
    rooms = {one.provider: one.capacity_sessions for one in made.entries}
    assert all(load.open_sessions >= rooms[load.provider] for load in found.passed_over)


@given(markets(), SEEDS, st.integers(1, 3))
def test_it_is_the_same_however_early_every_slice_is_asked(made: Market, seed: bytes, rounds: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "LAZY_ROUNDS", rounds)
        assert made.assigned(seed).stages == by_the_rule(made, seed)


@given(markets(), SEEDS)
def test_a_route_covers_every_layer_once_and_asks_no_more_than_allowed(made: Market, seed: bytes) -> None:
    stages = made.assigned(seed).stages
    covered = [layer for one in stages for layer in range(one.stage.first_layer, one.stage.end_layer)]
    assert covered in ([], list(range(LAYERS)))
    legs = [one for stage in stages for one in (stage.stage, stage.standby) if one]
    assert len({one.provider for one in legs}) == len(legs), "a provider has one place in a route"
    for stage in stages:
        if stage.standby:
            assert stage.standby.owner != stage.stage.owner
            assert (stage.standby.first_layer, stage.standby.end_layer) == (
                stage.stage.first_layer,
                stage.stage.end_layer,
            )
    for kind in ("prompt_udllm", "kept_udllm", "drafted_udllm", "replayed_udllm"):
        for together in ([one.stage for one in stages], [one.standby or one.stage for one in stages]):
            assert sum(getattr(one.prices, kind) for one in together) <= getattr(made.limit, kind)


@given(markets(), SEEDS, st.randoms(use_true_random=False))
def test_the_order_in_which_offers_were_made_decides_nothing(made: Market, seed: bytes, chance: Any) -> None:
    shuffled = list(made.entries)
    chance.shuffle(shuffled)
    assert replace(made, entries=tuple(shuffled)).assigned(seed) == made.assigned(seed)


@given(markets(), SEEDS, st.integers(0, 99))
def test_an_offer_that_has_no_place_in_the_route_may_go_without_changing_it(
    made: Market, seed: bytes, pick: int
) -> None:
    stages = made.assigned(seed).stages
    legs = {one.provider for stage in stages for one in (stage.stage, stage.standby) if one}
    losing = [one for one in made.entries if one.provider not in legs]
    if losing:
        gone = losing[pick % len(losing)]
        left = tuple(one for one in made.entries if one is not gone)
        assert replace(made, entries=left).assigned(seed).stages == stages


@given(markets())
def test_a_client_computes_the_route_again_from_the_loads_that_it_names(made: Market) -> None:
    asked: dict[str, Any] = {
        "account": ACCOUNT,
        "session_key": SESSION_KEY.public_key,
        "manifest_hash": b"m" * 32,
        "max_prices": made.limit,
        "exclusions": made.exclusions,
    }
    book = rank(made.book(), made.rules)
    route = make_route(book, load_of=made.load_of, **asked)
    if route is None:
        return
    again = make_route(book, load_of=loads_of(route), **asked)
    check_route(route, again)
    assert again == route
    legs = leg_entries(route)
    assert len(legs) == sum(2 if one.standby else 1 for one in route.stages)


@given(markets(), SEEDS)
def test_nobody_is_asked_twice_how_full_they_are(made: Market, seed: bytes) -> None:
    asked: list[bytes] = []

    def load_of(one: BookEntry) -> int:
        asked.append(one.provider)
        return made.load_of(one)

    assign(
        rank(made.book(), made.rules),
        max_prices=made.limit,
        exclusions=made.exclusions,
        load_of=load_of,
        seed=seed,
    )
    assert len(asked) == len(set(asked))


def excluded(made: Market, providers: Collection[bytes]) -> Market:
    return replace(made, exclusions=tuple(sorted({*made.exclusions, *providers})))


@given(markets(), SEEDS)
def test_without_its_first_stage_a_route_never_gets_cheaper(made: Market, seed: bytes) -> None:
    stages = made.assigned(seed).stages
    if not stages:
        return
    others = excluded(made, [stages[0].stage.provider]).assigned(seed).stages

    def cost(found: tuple[RouteStage, ...]) -> int:
        asked = sum(effective_cost(one.stage, made.rules.penalty_ppm) for one in found)
        return asked + made.rules.stage_cost * len(found)

    assert not others or cost(others) >= cost(stages)
