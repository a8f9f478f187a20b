"""Who serves a session: the rule that the chain applies and every client applies again [format].

A route is the cover of the model's layers, each by exactly one slice, that costs least. Offers count that ask no
more than their layers' part of the client's limits, are not excluded and have room. An offer's cost is its reference
price, raised by up to a genesis parameter for low reputation; each stage beyond the first costs a part of the model's
reserve, so that a model that fits one machine stays on one unless several are cheaper by more. Of covers that cost the
same the one of fewest stages is taken, then the one whose stages come first by a hash of the seed and the provider.
The standby of a stage is the cheapest other offer of the same slice by another owner than the stage's.

What depends on the book alone is worked out once for all sessions over it (`dllm_protocol.ranked_book`). Then the
cheapest cover is looked for as if everybody had room, and how many sessions an offer carries is asked only of those
that stand in it; while one is full, the next of its slice takes its place and the cheapest cover is looked for again.

The seed is a hash of the session id and the book. Whoever opens a session chooses its key and can grind the
order, but only among covers of exactly equal cost, and gains nothing by it that a choice of ``exclusions`` would
not give openly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from dllm_protocol.errors import VerificationFailed
from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.pricing import RowPrices, part_of
from dllm_protocol.ranked_book import OfferedSlice, RankedBook, RouteRules
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


LAZY_ROUNDS = 8
"""So many cheapest covers are tried before every slice is asked for its first offer with room: that bounds the work."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """What an assignment came to."""

    stages: tuple[RouteStage, ...]
    """None where the book cannot serve the model under the limits."""
    passed_over: tuple[ProviderLoad, ...]
    """Offers that were asked before one that was taken, and were full; ascending by provider."""


def assign(
    book: RankedBook, *, max_prices: RowPrices, exclusions: Collection[bytes], load_of: LoadOf, seed: bytes
) -> Assigned:
    """The stages of a route, and who was passed over for want of room.

    Args:
        max_prices: the most for the whole model; a stage may ask its layers' part of it, so that the route as a whole
            asks no more.
    """
    asked = _Asked(book.rules.layers, max_prices, frozenset(exclusions), load_of, seed)
    lines = [_Line(offered, asked) for offered in book.slices]
    cover = _cheapest_cover(lines, book.rules)
    rounds = 1
    # A cover that was found is the cheapest if its offers have room, because all others were taken to have it.
    while _settle(cover if rounds < LAZY_ROUNDS else lines):
        cover = _cheapest_cover(lines, book.rules)
        rounds += 1
    stages = tuple(RouteStage(line.first(), line.standby()) for line in cover)
    return Assigned(stages, tuple(sorted(asked.full, key=lambda load: load.provider)))


class _Asked:
    """What a session wants, and whom it found full."""

    def __init__(
        self,
        layers: int,
        max_prices: RowPrices,
        exclusions: frozenset[bytes],
        load_of: LoadOf,
        seed: bytes,
    ) -> None:
        self.exclusions = exclusions
        self.full: list[ProviderLoad] = []
        self._layers = layers
        self._max_prices = max_prices
        self._limits: dict[int, RowPrices] = {}
        self._load_of = load_of
        self._seed = seed

    def limit_of(self, layers: int) -> RowPrices:
        """The most that a slice of so many layers may ask."""
        limit = self._limits.get(layers)
        if limit is None:
            limit = self._limits[layers] = part_of(self._max_prices, layers, self._layers)
        return limit

    def has_room(self, entry: BookEntry) -> bool:
        """Whether an offer takes another session; it is noted where it does not."""
        load = self._load_of(entry)
        if load < entry.capacity_sessions:
            return True
        self.full.append(ProviderLoad(entry.provider, load))
        return False

    def tie(self, entry: BookEntry) -> bytes:
        """What orders offers of equal cost."""
        return tagged_hash(Tag.ROUTE_TIE, self._seed, entry.provider)


class _Line:
    """The offers of one slice that are within the limits, in the order in which this session takes them."""

    __slots__ = ("_asked", "_has_room", "_in_order", "_limit", "_tiers", "_waiting", "cost", "offered")

    def __init__(self, offered: OfferedSlice, asked: _Asked) -> None:
        self.offered = offered
        self.cost: int | None = None
        """Of the first offer; None where there is none."""
        self._asked = asked
        self._limit = asked.limit_of(offered.end_layer - offered.first_layer)
        self._tiers = iter(offered.tiers)
        self._waiting: list[BookEntry] = []
        self._in_order = False
        self._has_room = False
        self._next_tier()

    def first(self) -> BookEntry:
        """The offer whose turn it is."""
        if not self._in_order:
            self._waiting.sort(key=self._asked.tie, reverse=True)
            self._in_order = True
        return self._waiting[-1]

    def tie(self) -> bytes:
        """What orders slices that begin covers of equal cost."""
        return self._asked.tie(self.first())

    def settle(self) -> bool:
        """Pass over offers that are full; whether there were any."""
        changed = False
        while self.cost is not None and not self._has_room:
            self._has_room = self._asked.has_room(self.first())
            if not self._has_room:
                changed = True
                self._drop()
        return changed

    def standby(self) -> BookEntry | None:
        """Take the first offer, and find the next one of another owner that has room."""
        owner = self.first().owner
        self._drop()
        while self.cost is not None:
            entry = self.first()
            if entry.owner != owner and self._asked.has_room(entry):
                return entry
            self._drop()
        return None

    def _drop(self) -> None:
        self._waiting.pop()
        if not self._waiting:
            self._next_tier()

    def _next_tier(self) -> None:
        exclusions, limit = self._asked.exclusions, self._limit
        for tier in self._tiers:
            self._waiting = [
                entry
                for entry in tier.entries
                if entry.provider not in exclusions and entry.prices.within(limit)
            ]
            if self._waiting:
                self._in_order = len(self._waiting) == 1
                self.cost = tier.cost
                return
        self.cost = None


def _settle(lines: Iterable[_Line]) -> bool:
    """Have every slice begin with an offer that has room; whether anything changed by it."""
    changed = [line.settle() for line in lines]
    return any(changed)


def _cheapest_cover(lines: Iterable[_Line], rules: RouteRules) -> list[_Line]:
    """The slices that cover [0, layers) exactly at least cost, each with its first offer; empty where none do.

    A shortest path over the boundaries between layers, from the last one back: lines come by their first layer, the
    last first, so that all that may follow a slice was looked at before it.
    """
    best: dict[int, tuple[int, int]] = {rules.layers: (0, 0)}
    begins: dict[int, list[_Line]] = {}
    for line in lines:
        rest = best.get(line.offered.end_layer)
        if line.cost is None or rest is None:
            continue
        first_layer = line.offered.first_layer
        # Every stage is charged: that orders covers as charging those beyond the first does.
        total = (line.cost + rules.stage_cost + rest[0], 1 + rest[1])
        known = best.get(first_layer)
        if known is None or total < known:
            best[first_layer] = total
            begins[first_layer] = [line]
        elif total == known:
            begins[first_layer].append(line)
    cover: list[_Line] = []
    at = 0
    while at != rules.layers:
        candidates = begins.get(at)
        if candidates is None:
            return []
        line = candidates[0] if len(candidates) == 1 else min(candidates, key=_Line.tie)
        cover.append(line)
        at = line.offered.end_layer
    return cover


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
