"""How much a session locks, and which routes a session is used with."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_chat.dispatch.market import Market, foresee, foresee_without
from dllm_chat.dispatch.sessions import Sessions, can_serve, deposit_for
from dllm_chat.session.saved import SavedSession, SessionStore
from dllm_protocol.actions import OpenSession
from dllm_protocol.actions.sessions import MAX_EXCLUSIONS
from dllm_protocol.address import address_of
from dllm_protocol.assignment import RouteRefused, make_route, route_hash
from dllm_protocol.errors import TransactionRefused
from dllm_protocol.model_manifest import manifest_hash
from dllm_protocol.offer_book import BookEntry, OfferBook
from dllm_protocol.params import NETWORK_PARAMS
from dllm_protocol.pricing import RowPrices
from dllm_protocol.ranked_book import rank, rules_of
from dllm_protocol.records import MODEL_ACTIVE, SESSION_OPEN, ModelRecord, Route, RouteStage, Session
from dllm_protocol.signing import SeedSigner
from tests.vectors.record_formats import MANIFEST


def test_a_deposit_has_room_for_several_answers_within_half_of_what_there_is() -> None:
    assert deposit_for(100, 1_000_000, 50) == 800
    assert deposit_for(100, 1_050, 50) == 500
    assert deposit_for(100, 160, 50) == 100


def test_too_little_for_one_answer_is_refused_with_all_three_amounts() -> None:
    with pytest.raises(TransactionRefused, match=r"cost 100 udllm and 50 udllm fees, spendable are 149"):
        deposit_for(100, 149, 50)


@given(st.integers(1, 10**9), st.integers(0, 10**12), st.integers(0, 10**6))
def test_a_deposit_covers_the_quote_and_never_more_than_there_is(
    cost: int, spendable: int, fees: int
) -> None:
    if spendable - fees < cost:
        with pytest.raises(TransactionRefused):
            deposit_for(cost, spendable, fees)
    else:
        assert cost <= deposit_for(cost, spendable, fees) <= spendable - fees


# --- routes

KEY = SeedSigner(b"k" * 32)
ACCOUNT = address_of(SeedSigner(b"a" * 32).public_key)
CHAIN = "test-00000000"


def offer(number: int, first: int, end: int, price: int) -> BookEntry:
    prices = RowPrices(price, price, price, price)
    return BookEntry(bytes([number]) * 20, bytes([number + 50]) * 20, first, end, prices, 2, 1_000_000)


WHOLE, DEARER_WHOLE = offer(1, 0, 4, 3_000), offer(2, 0, 4, 3_500)
PARTS = (offer(3, 0, 2, 10), offer(4, 2, 4, 10))


@dataclass
class Chain:
    """A chain whose node opens every session over ``book``, and then shows ``shown`` of its route."""

    book: OfferBook
    shown: dict[str, Any]
    opened: tuple[Session, Route] | None = None

    account = ACCOUNT

    @property
    def client(self) -> object:
        return self

    async def sync(self) -> object:
        return SimpleNamespace(hash=lambda: b"h" * 32)

    async def params(self) -> object:
        return NETWORK_PARAMS

    def next_session_key(self) -> tuple[int, SeedSigner]:
        return 7, KEY

    async def send(self, purse: object, actions: tuple[OpenSession]) -> object:
        (action,) = actions
        route = make_route(
            rank(self.book, rules_of(MANIFEST, NETWORK_PARAMS)),
            account=ACCOUNT,
            session_key=action.session_key,
            manifest_hash=manifest_hash(MANIFEST),
            max_prices=action.max_prices,
            exclusions=action.exclusions,
            load_of=lambda entry: 0,
        )
        assert route is not None
        route = replace(route, **self.shown)
        self.opened = (
            Session(
                ACCOUNT,
                route.model,
                action.session_key,
                route_hash(route),
                action.deposit_udllm,
                0,
                SESSION_OPEN,
                0,
                (),
                b"",
                1,
                0,
                100_000,
                0,
            ),
            route,
        )
        return SimpleNamespace(height=5, fee_udllm=1, tx_hash=b"t" * 32)

    async def session(self, session_id: bytes) -> Session | None:
        return self.opened[0] if self.opened else None

    async def route(self, session_id: bytes) -> Route | None:
        return self.opened[1] if self.opened else None

    async def offer_book(self, model: str, epoch: int) -> OfferBook:
        return self.book


def market_of(*entries: BookEntry) -> Market:
    model = ModelRecord(b"o" * 20, MANIFEST, 1, MODEL_ACTIVE)
    return Market(model, OfferBook(MANIFEST.name, 1, entries), {})


async def opened(tmp_path: Path, chain: Chain, *quoted: RouteStage) -> tuple[Sessions, SavedSession]:
    """Open a session on the chain, on the strength of a quote over a book before."""
    double = cast(Any, chain)
    sessions = Sessions(CHAIN, double, double, double, SessionStore(tmp_path / "sessions"))
    market = Market(market_of().model, chain.book, {})
    with ExitStack() as claims:
        saved, _ = await sessions.open(market, quoted, 1_000, frozenset(), claims)
    return sessions, saved


async def test_a_session_whose_route_follows_from_the_book_is_used(tmp_path: Path) -> None:
    (quoted,) = foresee(market_of(WHOLE, DEARER_WHOLE), (), NETWORK_PARAMS)
    chain = Chain(market_of(WHOLE, DEARER_WHOLE).book, {})
    sessions, saved = await opened(tmp_path, chain, quoted)
    assert saved.route.stages == (RouteStage(WHOLE, DEARER_WHOLE),)
    with sessions.reuse(MANIFEST.name, frozenset()) as again:
        assert again == saved


async def test_a_route_of_other_stages_than_the_book_gives_is_refused(tmp_path: Path) -> None:
    (quoted,) = foresee(market_of(WHOLE, DEARER_WHOLE), (), NETWORK_PARAMS)
    one, other = (RouteStage(part, None) for part in PARTS)
    for shown in ((RouteStage(DEARER_WHOLE, WHOLE),), (one, other), (one,), (other, one)):
        chain = Chain(market_of(WHOLE, DEARER_WHOLE).book, {"stages": shown})
        with pytest.raises(RouteRefused, match="route's stages is"):
            await opened(tmp_path, chain, quoted)


async def test_a_session_that_got_several_stages_after_the_quote_is_used_all_the_same(tmp_path: Path) -> None:
    """The limits were quoted, and the cover is within them."""
    quoted = foresee(market_of(WHOLE, DEARER_WHOLE), (), NETWORK_PARAMS)
    chain = Chain(market_of(WHOLE, DEARER_WHOLE, *PARTS).book, {})
    sessions, saved = await opened(tmp_path, chain, *quoted)
    assert [one.stage for one in saved.route.stages] == list(PARTS)
    with sessions.reuse(MANIFEST.name, frozenset()) as again:
        assert again == saved


def test_a_route_serves_while_each_stage_has_somebody_left() -> None:
    route = Route(
        b"s" * 32,
        "m",
        b"m" * 32,
        1,
        b"b" * 32,
        b"e" * 32,
        (),
        (RouteStage(PARTS[0], offer(5, 0, 2, 11)), RouteStage(PARTS[1], None)),
    )
    three, four, five = (bytes([number]) * 20 for number in (3, 4, 5))
    assert can_serve(route, ())
    assert can_serve(route, (three,))
    assert can_serve(route, (five,))
    assert not can_serve(route, (three, five))
    assert not can_serve(route, (four,))


async def test_whoever_left_a_session_without_anybody_is_avoided_where_others_can_serve(
    tmp_path: Path,
) -> None:
    """Else the next question locks a deposit in a session with the same provider, which is still away."""
    market = market_of(WHOLE, DEARER_WHOLE)
    (quoted,) = foresee(market_of(WHOLE), (), NETWORK_PARAMS)
    sessions, saved = await opened(tmp_path, Chain(market_of(WHOLE).book, {}), quoted)
    assert sessions.stranded_by(MANIFEST.name) == frozenset()
    sessions.store.save(replace(saved, failed=(WHOLE.provider,)))
    avoided = sessions.stranded_by(MANIFEST.name)
    assert avoided == {WHOLE.provider} and not sessions.stranded_by("another-model")
    (stage,), exclude = foresee_without(market, (), avoided, NETWORK_PARAMS)
    assert (stage.stage, exclude) == (DEARER_WHOLE, avoided)
    # Where nobody else is there, it may be back.
    (stage,), exclude = foresee_without(market_of(WHOLE), (), avoided, NETWORK_PARAMS)
    assert (stage.stage, exclude) == (WHOLE, frozenset())
    # The chain takes so many exclusions, and the person's own come first.
    chosen = [bytes([200, number]) * 10 for number in range(MAX_EXCLUSIONS)]
    assert foresee_without(market, chosen, avoided, NETWORK_PARAMS)[1] == frozenset(chosen)
    sessions.store.save(replace(saved, failed=(WHOLE.provider,), closed=1))
    assert sessions.stranded_by(MANIFEST.name) == frozenset()
