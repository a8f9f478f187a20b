"""When offers freeze into books, and what a book holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol import state_keys
from dllm_protocol.actions import Heartbeat, Transfer, WithdrawOffer
from dllm_protocol.holder_book import holders_hash
from dllm_protocol.offer_book import book_hash, check_book
from dllm_protocol.records import OfferBookHead
from dllm_protocol.reputation import NO_EVIDENCE, score_ppm
from tests.full_node.state_machine.world import (
    LAYERS,
    MODEL,
    PARAMS,
    PRICES,
    World,
    address,
    provider_id,
)

BOB, CAROL, DAVE = provider_id("bob"), provider_id("carol"), provider_id("dave")


@pytest.fixture
def world() -> World:
    return World()


def providers_in_book(world: World) -> list[bytes]:
    return [entry.provider for entry in world.book().entries]


def tick(world: World, epochs: int = 1) -> None:
    """Let epochs pass, with a transaction that touches no offer at their end."""
    world.do("erin", Transfer(address("alice"), 1), after_ms=epochs * PARAMS.epoch_ms)


def test_the_first_offer_freezes_at_once(world: World) -> None:
    world.provide("bob")
    head, book = world.head(), world.book()
    assert head == OfferBookHead(MODEL, 0, book_hash(book), 1, 0, 0, holders_hash(world.holders()), 1)
    assert world.record(state_keys.offer_book(MODEL, 0), OfferBookHead) == head
    entry = book.entries[0]
    assert (entry.provider, entry.owner, entry.prices) == (BOB, address("bob"), PRICES)
    assert (entry.first_layer, entry.end_layer, entry.capacity_sessions) == (0, LAYERS, 4)
    assert entry.reputation_ppm == score_ppm(NO_EVIDENCE)


def test_a_second_owner_joins_a_thin_book_in_the_same_epoch(world: World) -> None:
    world.provide("bob")
    world.provide("carol")
    assert providers_in_book(world) == sorted((BOB, CAROL))
    assert world.head().stale == 0


def test_a_book_of_two_owners_stands_until_the_epoch_is_over(world: World) -> None:
    for owner in ("bob", "carol", "dave"):
        world.provide(owner)
    assert DAVE not in providers_in_book(world)
    assert world.head().stale == 1
    tick(world)
    assert providers_in_book(world) == sorted((BOB, CAROL, DAVE))
    assert (world.head().epoch, world.head().stale, world.head().previous_epoch) == (1, 0, 0)


def test_the_book_before_is_still_served_and_the_one_before_it_is_not(world: World) -> None:
    for owner in ("bob", "carol"):
        world.provide(owner)
    for _ in range(3):
        world.do("bob", Heartbeat(BOB), after_ms=PARAMS.epoch_ms)
    assert (world.head().epoch, world.head().previous_epoch) == (3, 2)
    for epoch, kept in ((0, False), (1, False), (2, True), (3, True)):
        assert (world.reader.get(state_keys.offer_list(MODEL, epoch)) is not None) == kept
        assert (world.reader.get(state_keys.offer_book(MODEL, epoch)) is not None) == kept


def test_books_name_the_epoch_before_across_gaps(world: World) -> None:
    for owner in ("bob", "carol"):
        world.provide(owner)
    for epochs in (4, 2):
        world.do("bob", Heartbeat(BOB), after_ms=epochs * PARAMS.epoch_ms)
    assert (world.head().epoch, world.head().previous_epoch) == (6, 4)


def test_an_idle_chain_freezes_nothing(world: World) -> None:
    for owner in ("bob", "carol", "dave"):
        world.provide(owner)
    assert world.head().stale == 1
    assert world.block(after_ms=9 * PARAMS.epoch_ms).changes == {}
    assert world.head().epoch == 0


def test_an_unchanged_book_stands_over_epochs(world: World) -> None:
    world.provide("bob")
    world.provide("carol")
    tick(world, 3)
    assert world.head().epoch == 0


def test_a_heartbeat_has_the_book_frozen_in_a_new_epoch_only(world: World) -> None:
    world.provide("bob")
    world.provide("carol")
    world.do("bob", Heartbeat(BOB))
    assert (world.head().epoch, world.head().stale) == (0, 0)
    world.do("bob", Heartbeat(BOB), after_ms=PARAMS.epoch_ms)
    assert world.head().epoch == 1


def test_a_provider_without_heartbeat_leaves_the_book_after_its_offers_life(world: World) -> None:
    world.provide("bob")
    world.provide("carol")
    for _ in range(PARAMS.offer_life_epochs):
        world.do("bob", Heartbeat(BOB), after_ms=PARAMS.epoch_ms)
    assert providers_in_book(world) == sorted((BOB, CAROL))
    world.do("bob", Heartbeat(BOB), after_ms=PARAMS.epoch_ms)
    assert providers_in_book(world) == [BOB]
    world.do("carol", Heartbeat(CAROL), after_ms=PARAMS.epoch_ms)
    assert providers_in_book(world) == sorted((BOB, CAROL))


def test_a_book_may_become_empty(world: World) -> None:
    world.provide("bob")
    world.do("bob", WithdrawOffer(BOB, MODEL))
    assert (world.head().offers, world.book().entries) == (0, ())
    world.provide("bob")
    assert providers_in_book(world) == [BOB]


def test_the_newest_book_is_served_unproved_and_fits_its_proved_hash(world: World) -> None:
    world.provide("bob")
    served = world.app.query("/offers", MODEL.encode())
    assert served is not None
    head = world.head()
    book = check_book(served, model=MODEL, epoch=head.epoch, expected_hash=head.book_hash)
    assert book == world.book()


@pytest.mark.parametrize(
    ("path", "data"), [("/offers", b"other"), ("/offers", b"\xff"), ("/offers", b""), ("/other", b"guide-1")]
)
def test_what_is_not_there_is_not_served(world: World, path: str, data: bytes) -> None:
    world.provide("bob")
    assert world.app.query(path, data) is None


def test_a_model_without_offers_has_no_book(world: World) -> None:
    tick(world)
    assert world.reader.get(state_keys.latest_offer_book(MODEL)) is None


def test_offers_of_one_owner_alone_keep_the_book_thin() -> None:
    world = World(replace(PARAMS, max_offers_per_model=2))
    world.provide("bob")
    world.provide("bob", replace(PRICES, kept_udllm=1))
    assert world.book().entries[0].prices.kept_udllm == 1
