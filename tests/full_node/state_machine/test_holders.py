"""What providers say of themselves for placement, and the holder book that is frozen beside the offer book."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol import refusals, state_keys
from dllm_protocol.actions import (
    Heartbeat,
    SetHolding,
    SetOffer,
    Transfer,
    UnbondProvider,
    WithdrawHolding,
    WithdrawOffer,
)
from dllm_protocol.holder_book import HolderBook, HolderEntry, check_holder_book, holders_hash
from dllm_protocol.offer_book import BookRefused
from dllm_protocol.params import weight_of
from dllm_protocol.pricing import RowPrices
from dllm_protocol.records import Holding, ProviderSet
from tests.full_node.state_machine.world import (
    LAYERS,
    MODEL,
    PARAMS,
    World,
    address,
    provider_id,
    refused,
)

BOB, CAROL = provider_id("bob"), provider_id("carol")
CHEAP = RowPrices(10, 100, 100, 10)


@pytest.fixture
def world() -> World:
    """Bob and Carol are registered and say nothing yet; the model is in pieces."""
    made = World(chunked=True)
    made.do("bob", made.registration("bob"))
    made.do("carol", made.registration("carol"))
    made.do("dave", Transfer(address("bob's operator"), 1_000_000))
    return made


def holding(provider: bytes = BOB, **changes: object) -> SetHolding:
    return replace(SetHolding(provider, MODEL, 5_000, 3, 0, 2), **changes)  # type: ignore[arg-type]  # by name


def offer(provider: bytes, first: int, end: int) -> SetOffer:
    return SetOffer(provider, MODEL, first, end, CHEAP, 4)


def entry(world: World, provider: bytes = BOB) -> HolderEntry | None:
    return next((one for one in world.holders().entries if one.provider == provider), None)


def test_a_newcomer_is_listed_at_once_while_it_loads(world: World) -> None:
    world.do("bob's operator", holding())
    assert world.holders().entries == (HolderEntry(BOB, address("bob"), 5_000, 3, 0, 2, 0, 0),)
    assert (world.head().offers, world.head().holders) == (0, 1)
    assert world.head().holders_hash == holders_hash(world.holders())
    assert world.record(state_keys.live_holders(MODEL), ProviderSet).providers == (BOB,)


def test_one_that_waits_is_listed_without_a_slice(world: World) -> None:
    world.do("bob", holding(first_layer=0, end_layer=0))
    assert entry(world) == HolderEntry(BOB, address("bob"), 5_000, 3, 0, 0, 0, 0)


def test_it_serves_once_its_offer_is_for_that_slice_and_loads_again_when_it_names_another(
    world: World,
) -> None:
    world.do("bob", holding())
    world.do("bob", offer(BOB, 0, 2))
    assert entry(world) == HolderEntry(BOB, address("bob"), 5_000, 3, 0, 2, 0, 1)
    world.do("bob", holding(first_layer=1, end_layer=4), after_ms=PARAMS.epoch_ms)
    assert entry(world) == HolderEntry(BOB, address("bob"), 5_000, 3, 1, 4, 1, 0)
    assert [(one.first_layer, one.end_layer) for one in world.book().entries] == [(0, 2)]


def test_the_epoch_of_a_slice_stays_while_speed_and_memory_change(world: World) -> None:
    world.do("bob", holding())
    world.do("bob", holding(speed_layer_rows_s=7_000, memory_layers=4), after_ms=3 * PARAMS.epoch_ms)
    assert entry(world) == HolderEntry(BOB, address("bob"), 7_000, 4, 0, 2, 0, 0)
    world.do("bob", holding(end_layer=3))
    assert world.record(state_keys.holding(MODEL, BOB), Holding).since_epoch == 3


def test_who_offers_and_says_nothing_is_a_holder_all_the_same(world: World) -> None:
    world.do("carol", offer(CAROL, 2, 4))
    assert entry(world, CAROL) == HolderEntry(CAROL, address("carol"), 0, 0, 2, 4, 0, 1)
    world.do("bob", holding())
    assert [one.provider for one in world.holders().entries] == sorted((BOB, CAROL))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"speed_layer_rows_s": 0}, ("speed of 0",)),
        ({"memory_layers": 0}, ("memory for 0",)),
        ({"memory_layers": LAYERS + 1}, (f"memory for {LAYERS + 1}", f"model of {LAYERS}")),
        ({"first_layer": 2, "end_layer": 2}, ("[2, 2)",)),
        ({"end_layer": LAYERS + 1}, (f"[0, {LAYERS + 1})",)),
        ({"end_layer": LAYERS}, ("4 layers are named, with memory for 3",)),
    ],
)
def test_what_no_provider_can_be_is_refused(
    world: World, changes: dict[str, object], words: tuple[str, ...]
) -> None:
    refused(world.send("bob", holding(**changes)), refusals.BadValue, *words)


def test_a_model_of_one_file_is_held_whole() -> None:
    world = World()
    world.do("bob", world.registration("bob"))
    refused(world.send("bob", holding()), refusals.BadValue, "one file")
    world.do("bob", holding(memory_layers=LAYERS, end_layer=LAYERS))


def test_strangers_and_the_unbonded_say_nothing(world: World) -> None:
    refused(world.send("carol", holding()), refusals.NotAuthorised)
    refused(world.send("carol", WithdrawHolding(BOB, MODEL)), refusals.NotAuthorised)
    world.do("bob", UnbondProvider(BOB, 1))
    refused(world.send("bob", holding()), refusals.BondTooSmall)


def test_who_takes_its_bond_back_or_falls_silent_is_no_holder(world: World) -> None:
    world.do("bob", holding())
    world.do("carol", holding(CAROL))
    world.do("bob", UnbondProvider(BOB, 1))
    world.do("carol", Heartbeat(CAROL), holding(CAROL))
    assert [one.provider for one in world.holders().entries] == [CAROL]
    later = (PARAMS.offer_life_epochs + 1) * PARAMS.epoch_ms
    world.do("dave", world.registration("dave"), holding(provider_id("dave")), after_ms=later)
    assert [one.provider for one in world.holders().entries] == [provider_id("dave")]


def test_what_was_withdrawn_is_gone_and_the_offer_stands(world: World) -> None:
    refused(world.send("bob", WithdrawHolding(BOB, MODEL)), refusals.UnknownOffer, BOB)
    world.do("bob", holding(), offer(BOB, 0, 2))
    world.do("bob", WithdrawHolding(BOB, MODEL))
    assert entry(world) == HolderEntry(BOB, address("bob"), 0, 0, 0, 2, 0, 1)
    world.do("bob", WithdrawOffer(BOB, MODEL))
    assert world.holders().entries == ()


def test_no_more_holders_than_offers_are_listed() -> None:
    world = World(replace(PARAMS, max_offers_per_model=1), chunked=True)
    world.do("bob", world.registration("bob"), holding())
    refused(world.send("carol", world.registration("carol"), holding(CAROL)), refusals.BadValue, "at most 1")
    world.do("bob", holding(first_layer=1, end_layer=3))


def test_the_list_of_the_book_before_is_kept_and_the_one_before_that_goes(world: World) -> None:
    for _ in range(3):
        world.do("bob", holding(), after_ms=PARAMS.epoch_ms)
    epoch = world.head().epoch
    kept = [world.reader.get(state_keys.holder_list(MODEL, epoch - back)) is not None for back in range(3)]
    assert kept == [True, True, False]


def test_actions_that_work_through_the_list_weigh_by_it(world: World) -> None:
    heavier = []
    for action in (holding(), WithdrawHolding(BOB, MODEL), offer(BOB, 0, 2)):
        transaction = world.sign("bob", action)
        light, heavy = (
            weight_of(PARAMS.fees, transaction, 0, lambda name, count=count: count) for count in (0, 100)
        )
        heavier.append(heavy - light)
    assert heavier == [1_000, 1_000, 1_000]
    world.do("bob", holding())
    assert world.head().listed == 1


def test_the_served_list_fits_its_proved_hash_and_a_twisted_one_does_not(world: World) -> None:
    world.do("bob", holding())
    head = world.head()
    raw = world.reader.get(state_keys.holder_list(MODEL, head.epoch))
    assert raw is not None
    asked = {"model": MODEL, "epoch": head.epoch, "expected_hash": head.holders_hash}
    assert check_holder_book(raw, **asked) == world.holders()  # type: ignore[arg-type]  # by name


def test_a_record_that_says_one_book_and_lists_another_is_no_holder_book() -> None:
    book = HolderBook(MODEL, 3, ())
    with pytest.raises(BookRefused, match=f"{MODEL}@3, asked was {MODEL}@4"):
        check_holder_book(book.encode(), model=MODEL, epoch=4, expected_hash=holders_hash(book))
