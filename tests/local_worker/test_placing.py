"""A worker's step in an epoch, by the holder book and what it knows of itself."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from dllm_protocol.holder_book import HolderBook, HolderEntry
from dllm_protocol.placement.holders import PlacementRefused
from dllm_protocol.placement.plan import Why
from dllm_protocol.placement.slices import Slice
from local_worker.placing import PATIENCE_EPOCHS, Act, EpochView, Own, Step

LAYERS = 8


def name(number: int) -> bytes:
    return number.to_bytes(20, "big")


def entry(
    number: int, first: int, end: int, *, serves: int = 1, memory: int = 4, since: int = 0
) -> HolderEntry:
    return HolderEntry(name(number), name(100 + number), 1000, memory, first, end, since, serves)


def own(number: int, *, memory: int = 4, **changes: object) -> Own:
    return replace(Own(name(number), name(100 + number), 1000, memory), **changes)  # type: ignore[arg-type]  # by name


def view(*entries: HolderEntry, epoch: int = 50) -> EpochView:
    ordered = tuple(sorted(entries, key=lambda one: one.provider))
    return EpochView(HolderBook("m", 49, ordered), epoch=epoch, layers=LAYERS)


def test_the_first_takes_what_fits_and_a_model_that_fits_stays_whole() -> None:
    first = view().step_of(own(1))
    assert (first.act, first.why) == (Act.FETCH, Why.JOIN)
    assert first.slice in {Slice(0, 4), Slice(4, 8)}
    assert view().step_of(own(1, memory=LAYERS)).slice == Slice(0, LAYERS)
    busy = view(entry(2, 0, 4), entry(3, 0, 4), entry(4, 4, 8), entry(5, 4, 8))
    assert busy.step_of(own(1, memory=LAYERS)).slice == Slice(0, LAYERS)


def test_the_next_covers_the_rest_although_the_first_still_loads() -> None:
    for serves in (0, 1):
        assert view(entry(1, 0, 4, serves=serves)).step_of(own(2)) == Step(Act.FETCH, Slice(4, 8), Why.JOIN)


def test_then_the_layers_with_too_few_owners_and_then_the_weakest_gain() -> None:
    thin = view(entry(1, 0, 4), entry(2, 4, 8), entry(3, 0, 4))
    assert thin.step_of(own(4)).slice == Slice(4, 8)
    weak = view(*(entry(n, 0, 4) for n in (1, 2, 3)), entry(4, 4, 8), entry(5, 4, 8))
    assert weak.step_of(own(6)).slice == Slice(4, 8)


def test_one_without_room_for_any_part_waits_and_says_so() -> None:
    small = EpochView(HolderBook("m", 1, ()), epoch=2, layers=80)
    assert small.step_of(own(1, memory=2)) == Step(Act.WAIT, None, Why.TOO_SMALL)


def test_those_who_wait_in_the_list_reckon_with_each_other() -> None:
    waiting = view(entry(1, 0, 0, serves=0), entry(2, 0, 0, serves=0))
    taken = {waiting.step_of(own(number)).slice for number in (1, 2)}
    assert taken == {Slice(0, 4), Slice(4, 8)}


def test_one_that_fetches_stays_and_then_switches_where_another_keeps_its_layers() -> None:
    keeper, moving = entry(2, 0, 4), entry(1, 4, 8, serves=0)
    me = own(1, serving=Slice(0, 4), coming=Slice(4, 8))
    acts = set()
    for epoch in range(50, 70):
        at = view(keeper, entry(3, 0, 4), moving, epoch=epoch)
        assert at.step_of(me) == Step(Act.STAY, Slice(0, 4))
        acts.add(at.step_of(replace(me, ready_epoch=epoch)).act)
    assert acts == {Act.STAY, Act.SWITCH}, "the order of each epoch says who keeps the layers in it"


def test_the_last_holder_never_switches_and_gives_up_in_time() -> None:
    me = own(1, serving=Slice(0, 4), coming=Slice(4, 8), ready_epoch=50)
    others = (entry(1, 4, 8, serves=0), entry(2, 4, 8))
    for epoch in range(50, 50 + PATIENCE_EPOCHS):
        assert view(*others, epoch=epoch).step_of(me) == Step(Act.STAY, Slice(0, 4))
    assert view(*others, epoch=50 + PATIENCE_EPOCHS).step_of(me) == Step(Act.GIVE_UP, Slice(0, 4))


def test_two_who_are_leaving_do_not_rely_on_each_other() -> None:
    leaving = (entry(1, 4, 8, serves=0), entry(2, 4, 8, serves=0))
    for epoch in range(50, 60):
        at = view(*leaving, epoch=epoch)
        for number in (1, 2):
            me = own(number, serving=Slice(0, 4), coming=Slice(4, 8), ready_epoch=epoch)
            assert at.step_of(me).act is Act.STAY


def test_who_grows_leaves_nothing_and_switches_alone() -> None:
    me = own(1, memory=8, serving=Slice(0, 4), coming=Slice(0, 8), ready_epoch=50)
    assert view(entry(1, 0, 8, serves=0, memory=8)).step_of(me) == Step(Act.SWITCH, Slice(0, 8))


def test_a_gap_is_covered_by_who_can_be_spared() -> None:
    at = view(*(entry(number, 0, 4) for number in (1, 2, 3)))
    steps = [at.step_of(own(number, serving=Slice(0, 4))) for number in (1, 2, 3)]
    assert Step(Act.FETCH, Slice(4, 8), Why.COVER) in steps
    assert sum(step.act is Act.STAY for step in steps) >= 1


def test_a_book_that_does_not_show_yet_where_the_worker_is_moves_nobody() -> None:
    at = view(entry(1, 0, 4), entry(2, 0, 4), entry(3, 0, 4))
    assert at.step_of(own(1, serving=Slice(4, 8))) == Step(Act.STAY, Slice(4, 8))


def test_leaving_for_good_needs_a_keeper_and_a_newcomer_needs_none() -> None:
    alone = view(entry(1, 0, 4))
    assert not alone.may_leave(own(1, serving=Slice(0, 4)))
    assert alone.may_leave(own(2))
    both = [view(entry(1, 0, 4), entry(2, 0, 4), epoch=epoch) for epoch in range(50, 60)]
    for at in both:
        may = [at.may_leave(own(number, serving=Slice(0, 4))) for number in (1, 2)]
        assert may.count(True) <= 1
        assert sorted((at.rank(name(1)), at.rank(name(2)))) == [0, 1]


def test_an_epoch_before_the_books_is_the_books() -> None:
    assert view(entry(1, 0, 4), epoch=3).epoch == 49


def test_a_book_that_cannot_be_is_refused() -> None:
    twice = HolderBook("m", 1, (entry(1, 0, 4), entry(1, 4, 8)))
    with pytest.raises(PlacementRefused, match="named twice"):
        EpochView(twice, epoch=1, layers=LAYERS).step_of(own(2))
    with pytest.raises(PlacementRefused, match="of a model of 8"):
        view(entry(1, 0, 9, memory=9)).step_of(own(2))


@pytest.mark.parametrize("seed", range(20))
def test_whoever_acts_in_an_epoch_each_layer_keeps_who_held_it(seed: int) -> None:
    """Everybody who wants to go, moving or for good, asks the same book; whatever they do, a holder stays."""
    chance = random.Random(seed)
    slices = (Slice(0, 4), Slice(4, 8))
    owns, entries = [], []
    for number in range(1, 9):
        old = chance.choice(slices)
        wants = chance.random() < 0.5
        coming = next(one for one in slices if one != old) if wants else None
        owns.append(own(number, serving=old, coming=coming, ready_epoch=50 if wants else None))
        at = coming or old
        entries.append(entry(number, at.first_layer, at.end_layer, serves=int(not wants)))
    at = view(*entries, epoch=50 + seed)
    stay = [one for one in owns if one.coming is None and not at.may_leave(one)]
    stay += [one for one in owns if one.coming is not None and at.step_of(one).act is not Act.SWITCH]
    for layers in slices:
        if any(one.serving == layers for one in owns):
            assert any(one.serving == layers for one in stay), seed
