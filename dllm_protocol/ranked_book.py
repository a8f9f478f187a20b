"""What every assignment over an offer book shares: its offers by slice, in the order in which sessions take them.

A *slice* is a range [a, b) of a model's layers. Offers of one slice compete with each other; slices that follow each
other without gap or overlap from layer 0 to the last are a cover, and a route is one of them. So an offer whose slice
stands in no cover counts for nothing, and is left out here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from dllm_protocol.model_manifest import Manifest
from dllm_protocol.offer_book import BookEntry, OfferBook, book_hash
from dllm_protocol.params import Params
from dllm_protocol.pricing import PPM, reference_cost

OWNERS_FOR_A_STANDBY = 2
ROUTE_STAGES_MAX = 16
"""Most stages of a route that is assigned. The record has room for more; what claims and closings weigh does not."""


@dataclass(frozen=True, slots=True)
class RouteRules:
    """What an assignment takes from the model and from the chain's parameters."""

    layers: int
    """The model's number of layers."""
    penalty_ppm: int
    """How much dearer an offer of score 0 counts than one of score 1."""
    stage_cost: int
    """What a route counts for each of its stages beyond the first, in millionths of udllm."""


def rules_of(manifest: Manifest, params: Params) -> RouteRules:
    """The rules of assignments for a model on a chain."""
    stage_cost = reference_cost(manifest.reserve_prices) * params.stage_penalty_ppm
    return RouteRules(manifest.layers, params.reputation_penalty_ppm, stage_cost)


def least_slice(layers: int) -> int:
    """The fewest layers that an offer may hold, so that no cover can have more than `ROUTE_STAGES_MAX` stages."""
    return layers // (ROUTE_STAGES_MAX + 1) + 1


def effective_cost(entry: BookEntry, penalty_ppm: int) -> int:
    """Reference price raised for low reputation, in millionths of udllm (for comparison only)."""
    return reference_cost(entry.prices) * (PPM + (PPM - entry.reputation_ppm) * penalty_ppm // PPM)


@dataclass(frozen=True, slots=True)
class Tier:
    """Offers of one slice and one cost."""

    cost: int
    """`effective_cost` of each."""
    entries: tuple[BookEntry, ...]


@dataclass(frozen=True, slots=True)
class OfferedSlice:
    """All offers of one slice."""

    first_layer: int
    end_layer: int
    tiers: tuple[Tier, ...]
    """The cheapest first."""


@dataclass(frozen=True, slots=True)
class RankedBook:
    """What every assignment over a book shares."""

    model: str
    epoch: int
    book_hash: bytes
    rules: RouteRules
    offers: int
    """How many stand in the whole book."""
    slices: tuple[OfferedSlice, ...]
    """Those that stand in a cover; the last first layer first, then the shortest."""
    is_thin: bool
    """Whether offers of fewer than two owners count, so that nobody has a standby; also where there is no cover."""


def rank(book: OfferBook, rules: RouteRules) -> RankedBook:
    """A book's offers in the order in which sessions take them."""
    slices = _in_covers(_by_slice(book.entries, rules), rules.layers)
    owners = {entry.owner for one in slices for tier in one.tiers for entry in tier.entries}
    return RankedBook(
        model=book.model,
        epoch=book.epoch,
        book_hash=book_hash(book),
        rules=rules,
        offers=len(book.entries),
        slices=slices,
        is_thin=len(owners) < OWNERS_FOR_A_STANDBY,
    )


def _by_slice(entries: Iterable[BookEntry], rules: RouteRules) -> list[OfferedSlice]:
    """Offers that a route may use, by slice and cost; slices ascend."""
    grouped: dict[tuple[int, int], list[tuple[int, BookEntry]]] = {}
    for entry in entries:
        first, end = entry.first_layer, entry.end_layer
        if end <= rules.layers and end - first >= least_slice(rules.layers):
            grouped.setdefault((first, end), []).append((effective_cost(entry, rules.penalty_ppm), entry))
    return [OfferedSlice(first, end, _tiers(costs)) for (first, end), costs in sorted(grouped.items())]


def _tiers(costs: list[tuple[int, BookEntry]]) -> tuple[Tier, ...]:
    costs.sort(key=lambda pair: pair[0])
    return tuple(
        Tier(cost, tuple(entry for _, entry in pairs))
        for cost, pairs in groupby(costs, key=lambda pair: pair[0])
    )


def _in_covers(ascending: list[OfferedSlice], layers: int) -> tuple[OfferedSlice, ...]:
    """Slices that other slices lead to from layer 0, and on from to the last one."""
    begun = {0}
    for one in ascending:
        if one.first_layer in begun:
            begun.add(one.end_layer)
    ended = {layers}
    kept = []
    for one in sorted(ascending, key=lambda one: (-one.first_layer, one.end_layer)):
        if one.end_layer in ended and one.first_layer in begun:
            ended.add(one.first_layer)
            kept.append(one)
    return tuple(kept)
