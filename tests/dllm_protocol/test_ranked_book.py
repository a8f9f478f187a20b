"""What depends on a book alone: which slices stand in a cover, in which order their offers come."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.model_manifest import MAX_LAYERS
from dllm_protocol.offer_book import BookEntry, OfferBook, book_hash
from dllm_protocol.params import NETWORK_PARAMS
from dllm_protocol.ranked_book import (
    ROUTE_STAGES_MAX,
    RankedBook,
    RouteRules,
    effective_cost,
    least_slice,
    rank,
    rules_of,
)
from dllm_protocol.records import MAX_STAGES
from tests.dllm_protocol.test_covers import LAYERS, entry
from tests.vectors.record_formats import MANIFEST

RULES = RouteRules(LAYERS, 1_000_000, 0)


def ranked(*entries: BookEntry, rules: RouteRules = RULES) -> RankedBook:
    return rank(OfferBook("m", 7, tuple(sorted(entries, key=lambda one: one.provider))), rules)


def test_only_slices_that_stand_in_a_cover_are_kept_the_last_first() -> None:
    book = ranked(
        entry(1, 1, 0, 2, 5),
        entry(2, 1, 2, 6, 5),
        entry(3, 1, 2, 4, 5),
        entry(4, 1, 1, 6, 5),
        entry(5, 1, 0, 6, 5),
        entry(6, 1, 2, 5, 5),
        entry(7, 1, 0, 7, 5),
    )
    assert [(one.first_layer, one.end_layer) for one in book.slices] == [(2, 6), (0, 2), (0, 6)]
    assert (book.model, book.epoch, book.offers, book.rules) == ("m", 7, 7, RULES)


def test_offers_of_a_slice_stand_in_tiers_by_cost() -> None:
    cheap, also, dear = entry(2, 1, 0, 6, 5), entry(1, 2, 0, 6, 5), entry(3, 3, 0, 6, 4, reputation_ppm=0)
    (offered,) = ranked(dear, cheap, also).slices
    assert [tier.entries for tier in offered.tiers] == [(also, cheap), (dear,)]
    assert [tier.cost for tier in offered.tiers] == [10_000_000, 16_000_000]
    assert effective_cost(dear, 0) == 8_000_000


def test_a_ranked_book_names_the_hash_of_all_offers() -> None:
    offers = (entry(1, 1, 0, 6, 5), entry(2, 1, 1, 2, 5))
    assert ranked(*offers).book_hash == book_hash(OfferBook("m", 7, offers))


@pytest.mark.parametrize(
    ("entries", "thin"),
    [
        ((), True),
        ((entry(1, 1, 0, 6, 5),), True),
        ((entry(1, 1, 0, 6, 5), entry(2, 1, 0, 6, 5)), True),
        ((entry(1, 1, 0, 6, 5), entry(2, 2, 0, 6, 5)), False),
        ((entry(1, 1, 0, 6, 5), entry(2, 2, 0, 3, 5)), True),  # the second one's offer counts for nothing
        ((entry(1, 1, 0, 3, 5), entry(2, 2, 0, 3, 5)), True),  # two owners, no cover
        ((entry(1, 1, 0, 3, 5), entry(2, 2, 3, 6, 5)), False),
    ],
)
def test_a_book_is_thin_while_its_covers_are_of_fewer_than_two_owners(
    entries: tuple[BookEntry, ...], thin: bool
) -> None:
    assert ranked(*entries).is_thin == thin


@pytest.mark.parametrize("layers", [1, 4, 16, 17, 33, 34, 50, 51, 52, 80, 126, MAX_LAYERS])
def test_slices_may_not_be_so_thin_that_a_cover_has_too_many_stages(layers: int) -> None:
    least = least_slice(layers)
    assert layers // least <= ROUTE_STAGES_MAX <= MAX_STAGES
    assert least == 1 or layers // (least - 1) > ROUTE_STAGES_MAX, "and need not be wider than that"


def test_rules_charge_a_stage_by_the_models_reserve() -> None:
    reserve = MANIFEST.reserve_prices
    rules = rules_of(MANIFEST, replace(NETWORK_PARAMS, stage_penalty_ppm=30_000))
    assert rules.stage_cost == 30_000 * (reserve.prompt_udllm + reserve.kept_udllm)
    assert (rules.layers, rules.penalty_ppm) == (MANIFEST.layers, NETWORK_PARAMS.reputation_penalty_ppm)
