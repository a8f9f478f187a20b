"""Who serves: cheapest by standing, another owner beside it, the same for everyone who computes it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.address import address_of
from dllm_protocol.assignment import (
    Assigned,
    RouteRefused,
    assign,
    check_route,
    leg_entries,
    leg_payees,
    loads_of,
    make_route,
    route_hash,
    route_seed,
    session_id_of,
)
from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.offer_book import BookEntry, OfferBook, book_hash
from dllm_protocol.pricing import RowPrices
from dllm_protocol.ranked_book import RankedBook, RouteRules, effective_cost, rank
from dllm_protocol.records import ProviderLoad, Route, RouteStage
from dllm_protocol.voucher import ROLE_STAGE, ROLE_STANDBY
from tests.vectors.record_formats import ACCOUNT, CLIENT, ROUTE, SESSION_KEY

LAYERS = 4
RESERVE = RowPrices(100, 100, 100, 100)
NO_LOADS: Mapping[bytes, int] = {}


def entry(
    provider: int, owner: int, price: int, *, reputation_ppm: int = 1_000_000, **changes: Any
) -> BookEntry:
    made = BookEntry(
        bytes([provider]) * 20,
        bytes([owner]) * 20,
        0,
        LAYERS,
        RowPrices(price, price, price, price),
        2,
        reputation_ppm,
    )
    return replace(made, **changes)


def book_of(*entries: BookEntry, penalty_ppm: int = 1_000_000) -> RankedBook:
    """The ranked book of the entries."""
    book = OfferBook("m", 1, tuple(sorted(entries, key=lambda one: one.provider)))
    return rank(book, RouteRules(LAYERS, penalty_ppm, 0))


def assigned_over(
    *entries: BookEntry, penalty_ppm: int = 1_000_000, loads: Mapping[bytes, int] = NO_LOADS, **changes: Any
) -> Assigned:
    """What an assignment over a book of the entries comes to."""
    asked: dict[str, Any] = {
        "max_prices": RESERVE,
        "exclusions": (),
        "load_of": lambda one: loads.get(one.provider, 0),
        "seed": b"s" * 32,
    }
    return assign(book_of(*entries, penalty_ppm=penalty_ppm), **{**asked, **changes})


def route_over(*entries: BookEntry, **changes: Any) -> tuple[RouteStage, ...]:
    """The stages over a book of the entries."""
    return assigned_over(*entries, **changes).stages


def chosen(*entries: BookEntry, **changes: Any) -> list[int]:
    """First bytes of stage and standby."""
    stages = route_over(*entries, **changes)
    if not stages:
        return []
    assert len(stages) == 1
    standby = stages[0].standby
    return [stages[0].stage.provider[0], *([standby.provider[0]] if standby else [])]


def test_the_cheapest_serves_and_the_cheapest_of_another_owner_stands_by() -> None:
    assert chosen(entry(1, 1, 30), entry(2, 1, 20), entry(3, 1, 25), entry(4, 2, 90)) == [2, 4]


def test_one_owner_alone_has_no_standby() -> None:
    assert chosen(entry(1, 1, 30), entry(2, 1, 20)) == [2]


def test_low_standing_makes_an_offer_dearer() -> None:
    doubtful = entry(1, 1, 20, reputation_ppm=0)
    assert chosen(doubtful, entry(2, 2, 30)) == [2, 1]
    assert chosen(doubtful, entry(2, 2, 30), penalty_ppm=0) == [1, 2]
    assert effective_cost(doubtful, 1_000_000) == 2 * effective_cost(doubtful, 0)


@pytest.mark.parametrize(
    "unfit",
    [
        entry(1, 1, 1, first_layer=1),
        entry(1, 1, 1, end_layer=LAYERS - 1),
        entry(1, 1, 1, capacity_sessions=0),
        entry(1, 1, 101),
        entry(1, 1, 1, prices=RowPrices(1, 1, 1, 101)),
    ],
)
def test_an_offer_that_does_not_fit_is_never_chosen(unfit: BookEntry) -> None:
    assert chosen(unfit) == []
    assert chosen(unfit, entry(2, 2, 50)) == [2]


def test_excluded_and_full_providers_are_never_chosen() -> None:
    book = (entry(1, 1, 1), entry(2, 2, 2), entry(3, 3, 3))
    assert chosen(*book, exclusions=(bytes([1]) * 20,)) == [2, 3]
    assert chosen(*book, loads={bytes([1]) * 20: 2, bytes([2]) * 20: 1}) == [2, 3]


def test_equal_offers_are_ordered_by_the_seed() -> None:
    book = [entry(number, number, 5) for number in range(1, 6)]
    orders = {tuple(chosen(*book, seed=bytes([seed]) * 32)) for seed in range(40)}
    assert {order[0] for order in orders} == {1, 2, 3, 4, 5}
    assert chosen(*book) == chosen(*book)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 120), st.integers(0, 3)), max_size=12),
    st.binary(min_size=32, max_size=32),
)
def test_whoever_serves_is_within_limits_and_nobody_fit_is_cheaper(
    offers: list[tuple[int, int, int]], seed: bytes
) -> None:
    entries = [
        entry(number + 1, owner, price, capacity_sessions=room)
        for number, (owner, price, room) in enumerate(offers)
    ]
    stages = route_over(*entries, seed=seed)
    fit = [one for one in entries if one.prices.within(RESERVE) and one.capacity_sessions]
    assert bool(stages) == bool(fit)
    if stages:
        stage, standby = stages[0].stage, stages[0].standby
        assert stage in fit
        assert stage.prices.kept_udllm == min(one.prices.kept_udllm for one in fit)
        others = [one for one in fit if one.owner != stage.owner]
        assert (standby is None) == (not others)
        if standby is not None:
            assert standby in others
            assert standby.prices.kept_udllm == min(one.prices.kept_udllm for one in others)


# --- as the rule says it, without shortcuts


def by_the_rule(
    entries: Sequence[BookEntry], exclusions: Collection[bytes], loads: Mapping[bytes, int], seed: bytes
) -> tuple[RouteStage, ...]:
    """The rule as docs/protocol states it: every offer is looked at, and all that fit are put in order."""
    fit = sorted(
        (
            one
            for one in entries
            if (one.first_layer, one.end_layer) == (0, LAYERS)
            and one.prices.within(RESERVE)
            and one.provider not in exclusions
            and loads[one.provider] < one.capacity_sessions
        ),
        key=lambda one: (effective_cost(one, 1_000_000), tagged_hash(Tag.ROUTE_TIE, seed, one.provider)),
    )
    if not fit:
        return ()
    return (RouteStage(fit[0], next((one for one in fit if one.owner != fit[0].owner), None)),)


@st.composite
def markets(draw: st.DrawFn) -> tuple[list[BookEntry], list[bytes], dict[bytes, int]]:
    """Offers, many of equal cost, some full, some without all layers; who is excluded; what each carries."""
    offers = draw(
        st.lists(
            st.tuples(
                st.integers(1, 3),  # owner
                st.sampled_from([10, 20, 101]),
                st.sampled_from([0, 500_000, 1_000_000]),  # reputation
                st.integers(1, 2),  # capacity
                st.integers(0, 3),  # load
                st.booleans(),  # excluded
                st.sampled_from([0, 0, 0, 1]),  # first layer
            ),
            max_size=14,
        )
    )
    entries, exclusions, loads = [], [], {}
    for number, (owner, price, reputation, room, load, excluded, first) in enumerate(offers, 1):
        made = entry(
            number, owner, price, reputation_ppm=reputation, capacity_sessions=room, first_layer=first
        )
        entries.append(made)
        loads[made.provider] = load
        if excluded:
            exclusions.append(made.provider)
    return entries, exclusions, loads


@given(markets(), st.binary(min_size=32, max_size=32))
def test_walking_a_book_of_whole_models_comes_to_what_the_rule_says(
    market: tuple[list[BookEntry], list[bytes], dict[bytes, int]], seed: bytes
) -> None:
    entries, exclusions, loads = market
    found = assigned_over(*entries, exclusions=exclusions, loads=loads, seed=seed)
    assert found.stages == by_the_rule(entries, exclusions, loads, seed)
    rooms = {one.provider: one.capacity_sessions for one in entries}
    named = [load.provider for load in found.passed_over]
    assert named == sorted(set(named))
    assert all(load.open_sessions >= rooms[load.provider] for load in found.passed_over)


@given(markets())
def test_the_loads_that_a_route_names_are_enough_to_compute_it_again(
    market: tuple[list[BookEntry], list[bytes], dict[bytes, int]],
) -> None:
    entries, exclusions, loads = market
    asked: dict[str, Any] = {
        "account": ACCOUNT,
        "session_key": SESSION_KEY.public_key,
        "manifest_hash": b"m" * 32,
        "max_prices": RESERVE,
        "exclusions": exclusions,
    }
    route = make_route(book_of(*entries), load_of=lambda one: loads[one.provider], **asked)
    if route is not None:
        assert make_route(book_of(*entries), load_of=loads_of(route), **asked) == route
        everything = replace(
            route, loads=tuple(ProviderLoad(*pair) for pair in sorted(loads.items()) if pair[1])
        )
        again = make_route(book_of(*entries), load_of=loads_of(everything), **asked)
        assert again == route, "routes that name every load, as older ones do, are computed again too"


def test_loads_are_asked_only_of_offers_that_come_before_the_last_one_taken() -> None:
    asked: list[int] = []

    def load_of(one: BookEntry) -> int:
        asked.append(one.provider[0])
        return 2 if one.provider[0] == 1 else 0

    book = [entry(number, number, number * 10) for number in (1, 2, 3, 4)]
    found = assigned_over(*book, entry(5, 2, 25), load_of=load_of)
    assert (found.stages[0].stage.provider[0], asked) == (2, [1, 2, 3])
    assert [(load.provider[0], load.open_sessions) for load in found.passed_over] == [(1, 2)]


# --- the record


def made_route() -> Route:
    route = make_route(
        book_of(entry(1, 1, 5), entry(2, 2, 6), entry(3, 3, 4), penalty_ppm=0),
        account=ACCOUNT,
        session_key=SESSION_KEY.public_key,
        manifest_hash=b"m" * 32,
        max_prices=RESERVE,
        exclusions=(),
        load_of=lambda one: 2 if one.provider[0] == 3 else 1,
    )
    assert route is not None
    return route


def test_a_route_names_everything_that_made_it() -> None:
    route = made_route()
    assert route.session == session_id_of(ACCOUNT, SESSION_KEY.public_key)
    assert route.seed == route_seed(route.session, route.book_hash)
    assert [(load.provider[0], load.open_sessions) for load in route.loads] == [(3, 2)]
    frozen = OfferBook("m", 1, (entry(1, 1, 5), entry(2, 2, 6), entry(3, 3, 4)))
    assert (route.model, route.book_epoch, route.book_hash) == ("m", 1, book_hash(frozen))


@pytest.mark.parametrize(
    "change",
    [
        {"session": b"s" * 32},
        {"model": "n"},
        {"manifest_hash": b"n" * 32},
        {"book_epoch": 2},
        {"book_hash": b"b" * 32},
        {"seed": b"e" * 32},
        {"stages": (RouteStage(entry(2, 2, 6), None),)},
    ],
)
def test_another_route_than_computed_is_refused_by_field(change: dict[str, Any]) -> None:
    route = made_route()
    check_route(route, route)
    with pytest.raises(RouteRefused, match=f"route's {next(iter(change))} is"):
        check_route(replace(route, **change), route)
    assert route_hash(replace(route, **change)) != route_hash(route)


def test_a_route_where_there_is_none_is_refused() -> None:
    with pytest.raises(RouteRefused):
        check_route(made_route(), None)


def test_legs_are_stage_and_standby_each_paid_whole() -> None:
    legs = leg_entries(made_route())
    assert {provider[0]: role for provider, (_, role) in legs.items()} == {1: ROLE_STAGE, 2: ROLE_STANDBY}
    payees = leg_payees(*legs[bytes([2]) * 20])
    assert [(payee.owner[0], payee.role, payee.share_ppm) for payee in payees] == [(2, ROLE_STANDBY, 10**6)]


def test_sessions_of_other_accounts_or_keys_have_other_ids() -> None:
    ids = {
        session_id_of(account, key) for account in (b"a" * 20, b"b" * 20) for key in (b"k" * 32, b"l" * 32)
    }
    assert len(ids) == 4
    assert ROUTE is not None
    assert ROUTE.session == session_id_of(address_of(CLIENT.public_key), SESSION_KEY.public_key)
