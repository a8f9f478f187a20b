"""Who serves a session: the rule that the chain applies and every client applies again [format].

Now: routes of one stage. Among the offers of the book that hold the whole model, ask no more than the client's
limits, are not excluded and have room, the cheapest wins; an offer's cost is its reference price, raised by up
to a genesis parameter for low reputation. The standby is the cheapest offer of another owner. Equal costs are
ordered by a hash of the seed and the provider.

The seed is a hash of the session id and the book. Whoever opens a session chooses its key and can grind the
order, but only among offers of exactly equal cost, and gains nothing by it that a choice of ``exclusions`` would
not give openly.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dllm_protocol.errors import VerificationFailed
from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.offer_book import BookEntry, OfferBook, book_hash
from dllm_protocol.pricing import PPM, RowPrices, reference_cost
from dllm_protocol.records import ProviderLoad, Route, RouteStage
from dllm_protocol.voucher import ROLE_STAGE, ROLE_STANDBY, WHOLE_SHARE_PPM, Payee


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
    return tagged_hash(Tag.ROUTE, route.encode())


def effective_cost(entry: BookEntry, penalty_ppm: int) -> int:
    """Reference price raised for low reputation, in millionths of udllm (for comparison only)."""
    return reference_cost(entry.prices) * (PPM + (PPM - entry.reputation_ppm) * penalty_ppm // PPM)


def assign(
    book: OfferBook,
    *,
    layers: int,
    max_prices: RowPrices,
    exclusions: Collection[bytes],
    loads: Mapping[bytes, int],
    seed: bytes,
    penalty_ppm: int,
) -> tuple[RouteStage, ...]:
    """The route's stages, or none where the book cannot serve the model under the limits.

    Args:
        layers: the model's number of layers.
        loads: sessions that each provider carries already; absent = 0.
    """
    candidates = sorted(
        (
            entry
            for entry in book.entries
            if (entry.first_layer, entry.end_layer) == (0, layers)
            and entry.prices.within(max_prices)
            and entry.provider not in exclusions
            and loads.get(entry.provider, 0) < entry.capacity_sessions
        ),
        key=lambda entry: (
            effective_cost(entry, penalty_ppm),
            tagged_hash(Tag.ROUTE_TIE, seed, entry.provider),
        ),
    )
    if not candidates:
        return ()
    stage = candidates[0]
    standby = next((entry for entry in candidates[1:] if entry.owner != stage.owner), None)
    return (RouteStage(stage, standby),)


def make_route(
    book: OfferBook,
    *,
    account: bytes,
    session_key: bytes,
    manifest_hash: bytes,
    layers: int,
    max_prices: RowPrices,
    exclusions: Collection[bytes],
    loads: Mapping[bytes, int],
    penalty_ppm: int,
) -> Route | None:
    """The whole route record of a session, or None where there is no route."""
    session_id = session_id_of(account, session_key)
    hash_of_book = book_hash(book)
    seed = route_seed(session_id, hash_of_book)
    stages = assign(
        book,
        layers=layers,
        max_prices=max_prices,
        exclusions=exclusions,
        loads=loads,
        seed=seed,
        penalty_ppm=penalty_ppm,
    )
    if not stages:
        return None
    return Route(
        session=session_id,
        model=book.model,
        manifest_hash=manifest_hash,
        book_epoch=book.epoch,
        book_hash=hash_of_book,
        seed=seed,
        loads=tuple(ProviderLoad(provider, load) for provider, load in sorted(loads.items()) if load),
        stages=stages,
    )


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
