"""Who serves a session: the rule that the chain applies and every client applies again [format].

Now: routes of one stage. Among the offers of the book that hold the whole model, ask no more than the client's
limits, are not excluded and have room, the cheapest wins; an offer's cost is its reference price, raised by up
to a genesis parameter for low reputation. The standby is the cheapest offer of another owner. Equal costs are
ordered by a hash of the seed and the provider.

What depends on the book alone is worked out once for all sessions over it (`rank`). Then offers are walked in that
order, and the first that fit are taken: how many sessions an offer carries is asked only of those that come before.

The seed is a hash of the session id and the book. Whoever opens a session chooses its key and can grind the
order, but only among offers of exactly equal cost, and gains nothing by it that a choice of ``exclusions`` would
not give openly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import groupby

from dllm_protocol.errors import VerificationFailed
from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.offer_book import BookEntry, OfferBook, book_hash
from dllm_protocol.pricing import PPM, RowPrices, reference_cost
from dllm_protocol.records import ProviderLoad, Route, RouteStage
from dllm_protocol.voucher import ROLE_STAGE, ROLE_STANDBY, WHOLE_SHARE_PPM, Payee

LoadOf = Callable[[BookEntry], int]
"""How many sessions an offer carries already; one that no longer stands as it was frozen counts as full."""


class RouteRefused(VerificationFailed):
    """A route that the rule would not have made."""

    code = "E_ROUTE"


def session_id_of(account: bytes, session_key: bytes) -> bytes:
    """Id of the session that ``account`` opens with a key (32 bytes)."""
    return tagged_hash(Tag.SESSION, account, session_key)


def route_seed(session_id: bytes, hash_of_book: bytes) -> bytes:
    """Tie-break seed of a session's assignment (32 bytes)."""
    return tagged_hash(Tag.ROUTE_SEED, session_id, hash_of_book)


def route_hash(route: Route) -> bytes:
    """What vouchers bind to (32 bytes)."""
    return encoded_route_hash(route.encode())


def encoded_route_hash(raw: bytes) -> bytes:
    """`route_hash` of a route whose bytes are at hand."""
    return tagged_hash(Tag.ROUTE, raw)


def effective_cost(entry: BookEntry, penalty_ppm: int) -> int:
    """Reference price raised for low reputation, in millionths of udllm (for comparison only)."""
    return reference_cost(entry.prices) * (PPM + (PPM - entry.reputation_ppm) * penalty_ppm // PPM)


@dataclass(frozen=True, slots=True)
class RankedBook:
    """What every assignment over a book shares."""

    model: str
    epoch: int
    book_hash: bytes
    layers: int
    """The model's number of layers; offers of fewer do not count."""
    offers: int
    """How many stand in the whole book."""
    tiers: tuple[tuple[BookEntry, ...], ...]
    """Offers that hold the whole model, the cheapest first; those of a tier cost the same."""


def rank(book: OfferBook, *, layers: int, penalty_ppm: int) -> RankedBook:
    """A book's offers in the order in which sessions take them.

    Args:
        layers: the model's number of layers.
        penalty_ppm: how much dearer an offer of score 0 counts than one of score 1.
    """
    costs = [
        (effective_cost(entry, penalty_ppm), entry)
        for entry in book.entries
        if (entry.first_layer, entry.end_layer) == (0, layers)
    ]
    costs.sort(key=lambda pair: pair[0])
    tiers = tuple(tuple(entry for _, entry in tier) for _, tier in groupby(costs, key=lambda pair: pair[0]))
    return RankedBook(book.model, book.epoch, book_hash(book), layers, len(book.entries), tiers)


@dataclass(frozen=True, slots=True)
class Assigned:
    """What an assignment came to."""

    stages: tuple[RouteStage, ...]
    """None where the book cannot serve the model under the limits."""
    passed_over: tuple[ProviderLoad, ...]
    """Offers that would have been taken before one that was, and were full; ascending by provider."""


def assign(
    book: RankedBook, *, max_prices: RowPrices, exclusions: Collection[bytes], load_of: LoadOf, seed: bytes
) -> Assigned:
    """The stages of a route, and who was passed over for want of room."""
    stage: BookEntry | None = None
    standby: BookEntry | None = None
    full: list[ProviderLoad] = []
    for entry in _in_turn(book, max_prices, frozenset(exclusions), seed):
        if stage is not None and entry.owner == stage.owner:
            continue
        load = load_of(entry)
        if load >= entry.capacity_sessions:
            full.append(ProviderLoad(entry.provider, load))
        elif stage is None:
            stage = entry
        else:
            standby = entry
            break
    stages = () if stage is None else (RouteStage(stage, standby),)
    return Assigned(stages, tuple(sorted(full, key=lambda load: load.provider)))


def _in_turn(
    book: RankedBook, max_prices: RowPrices, exclusions: frozenset[bytes], seed: bytes
) -> Iterator[BookEntry]:
    """Offers within the limits, in the order in which this session takes them."""
    for tier in book.tiers:
        fitting = [
            entry for entry in tier if entry.provider not in exclusions and entry.prices.within(max_prices)
        ]
        if len(fitting) > 1:
            fitting.sort(key=lambda entry: tagged_hash(Tag.ROUTE_TIE, seed, entry.provider))
        yield from fitting


def make_route(
    book: RankedBook,
    *,
    account: bytes,
    session_key: bytes,
    manifest_hash: bytes,
    max_prices: RowPrices,
    exclusions: Collection[bytes],
    load_of: LoadOf,
) -> Route | None:
    """The whole route record of a session, or None where there is no route."""
    session_id = session_id_of(account, session_key)
    seed = route_seed(session_id, book.book_hash)
    assigned = assign(book, max_prices=max_prices, exclusions=exclusions, load_of=load_of, seed=seed)
    if not assigned.stages:
        return None
    return Route(
        session=session_id,
        model=book.model,
        manifest_hash=manifest_hash,
        book_epoch=book.epoch,
        book_hash=book.book_hash,
        seed=seed,
        loads=assigned.passed_over,
        stages=assigned.stages,
    )


def loads_of(route: Route) -> LoadOf:
    """The loads that a route was made with: those that it names were full, the others had room."""
    named = {load.provider: load.open_sessions for load in route.loads}
    return lambda entry: named.get(entry.provider, 0)


def check_route(route: Route, expected: Route | None) -> None:
    """Refuse a route that differs from the one computed here.

    Raises:
        RouteRefused: naming the first field that differs, both values.
    """
    if expected is None:
        raise RouteRefused("the chain made a route where the offer book has none")
    for field in ("session", "model", "manifest_hash", "book_epoch", "book_hash", "seed", "stages"):
        got, wanted = getattr(route, field), getattr(expected, field)
        if got != wanted:
            shown = [value.hex() if isinstance(value, bytes) else repr(value) for value in (got, wanted)]
            raise RouteRefused(
                f"the route's {field} is {shown[0]}, computed from the proved book is {shown[1]}",
                hint="do not use this session: close it and tell the network's operators",
            )


def leg_entries(route: Route) -> dict[bytes, tuple[BookEntry, int]]:
    """Every provider of a route with its offer and role (ROLE_STAGE or ROLE_STANDBY)."""
    legs: dict[bytes, tuple[BookEntry, int]] = {}
    for stage in route.stages:
        if stage.standby is not None:
            legs[stage.standby.provider] = (stage.standby, ROLE_STANDBY)
    for stage in route.stages:
        legs[stage.stage.provider] = (stage.stage, ROLE_STAGE)
    return legs


def leg_payees(entry: BookEntry, role: int) -> tuple[Payee, ...]:
    """Who is paid for a leg: its owner, whole."""
    return (Payee(entry.owner, role, WHOLE_SHARE_PPM),)
