"""What one provider does, when it may leave, and which model it helps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.placement.holders import Holder, PlacementRules
from dllm_protocol.placement.plan import EpochPlan, Why
from dllm_protocol.placement.rule import Demand, decide, may_leave, model_most_in_want, placement_seed
from dllm_protocol.placement.slices import Slice, fitting_slices, frame_of
from dllm_protocol.placement.supply import layer_rates_mrows_s, rate_mrows_s
from dllm_protocol.ranked_book import ROUTE_STAGES_MAX, least_slice
from tests.dllm_protocol.placement.networks import (
    RULES,
    SEED,
    grown_networks,
    holder,
    name,
    newcomer,
    wild_networks,
)
from tests.simulation.placement_bounds import bound_mrows_s, routed_mrows_s

EPOCH = 10


def place(one: Holder, *others: Holder, layers: int, rules: PlacementRules = RULES) -> Slice | None:
    return decide(one, others, layers=layers, epoch=EPOCH, seed=SEED, rules=rules).held


def test_a_model_that_fits_one_machine_stays_on_one() -> None:
    assert place(newcomer(1, 32), layers=32) == Slice(0, 32)
    assert place(newcomer(2, 99), holder(1, 0, 16), layers=32) == Slice(0, 32)


@pytest.mark.parametrize(
    "memories", [(20, 12), (12, 20), (12, 12, 8), (30, 2), (5, 9, 3, 15), (2,) * 16, (9, 9, 9, 9)]
)
def test_a_model_is_covered_as_soon_as_the_memories_add_up_to_it(memories: tuple[int, ...]) -> None:
    held: list[Holder] = []
    for number, memory in enumerate(memories):
        one = newcomer(number, memory)
        held.append(replace(one, held=place(one, *held, layers=32)))
    assert min(layer_rates_mrows_s(held, 32)) > 0
    assert routed_mrows_s(held, 32) == min(layer_rates_mrows_s(held, 32))


def test_a_second_machine_of_the_same_size_stands_by_on_the_same_slice() -> None:
    held = [holder(1, 0, 20), holder(2, 20, 32)]
    assert place(newcomer(3, 20), *held, layers=32) == Slice(0, 20)
    assert place(newcomer(3, 13), *held, layers=32) == Slice(20, 32)


def test_a_newcomer_takes_the_weakest_of_the_slices_that_fit() -> None:
    held = [*(holder(n, 0, 2, speed=900) for n in (1, 2)), *(holder(n, 2, 4, speed=800) for n in (3, 4))]
    assert place(newcomer(5, 2), *held, layers=4) == Slice(2, 4)
    assert place(newcomer(5, 3), *held, layers=4) == Slice(2, 4)


def test_who_has_too_little_memory_for_the_least_part_is_told() -> None:
    rules = PlacementRules(least_layers=8)
    held = [holder(1, 0, 16), holder(2, 16, 32)]
    told = decide(newcomer(3, 7), held, layers=32, epoch=EPOCH, seed=SEED, rules=rules)
    assert (told.why, told.held) == (Why.TOO_SMALL, None)


def test_nobody_is_given_fewer_layers_than_an_offer_must_hold() -> None:
    held: list[Holder] = []
    for number in range(40):
        one = newcomer(number, 32)
        held.append(replace(one, held=place(one, *held, layers=512)))
    assert min(layer_rates_mrows_s(held, 512)) > 0
    assert len({one.held for one in held}) == ROUTE_STAGES_MAX
    too_small = newcomer(99, least_slice(512) - 1)
    assert place(too_small, *held, layers=512) is None
    assert place(too_small, layers=512) is None


def test_what_is_left_of_a_gap_is_enough_for_an_offer() -> None:
    assert least_slice(32) == 2
    assert place(newcomer(9, 31), layers=32) in (Slice(0, 30), Slice(2, 32))
    grows = replace(holder(1, 8, 16), memory_layers=15)
    assert place(grows, holder(2, 24, 32), layers=32) in (Slice(2, 16), Slice(2, 17))


def test_who_holds_more_than_it_says_it_can_neither_grows_nor_shrinks() -> None:
    stretched = replace(holder(1, 0, 4), memory_layers=2)
    assert place(stretched, layers=8) == Slice(0, 4)


def test_equal_newcomers_at_the_same_time_do_not_all_take_the_same_slice() -> None:
    held = [holder(number, (number % 4) * 8, (number % 4) * 8 + 8) for number in range(8)]
    found = {place(newcomer(number, 8), *held, layers=32) for number in range(10, 50)}
    assert len(found) == 4


@given(wild_networks())
def test_everybody_comes_to_the_same_plan(network: tuple[int, list[Holder]]) -> None:
    layers, holders = network
    plan = EpochPlan(holders, layers=layers, epoch=EPOCH, seed=SEED, rules=RULES)
    together = {one.provider: decision for one, decision in plan.decisions()}
    for one in holders:
        alone = decide(one, holders, layers=layers, epoch=EPOCH, seed=SEED, rules=RULES)
        if one.provider in together:
            assert alone == together[one.provider]
        else:
            assert (alone.why, alone.held) == (Why.STAY, one.held)


@given(grown_networks(), st.integers(1, 40), st.integers(1, 5000))
def test_no_other_part_that_fits_would_have_helped_the_weakest_layer_more(
    network: tuple[int, list[Holder]], memory: int, speed: int
) -> None:
    layers, held = network
    one = newcomer(99, memory, speed=speed, owner=99)
    chosen = place(one, *held, layers=layers)
    if chosen is None:
        return
    before = layer_rates_mrows_s(held, layers)

    def weakest_with(slice_: Slice) -> int:
        rate = rate_mrows_s(speed, slice_.layers)
        return min(
            have + rate * (slice_.first_layer <= layer < slice_.end_layer)
            for layer, have in enumerate(before)
        )

    assert weakest_with(chosen) >= min(before)
    if min(before) == 0:
        return
    owners = [
        {one.owner for one in held if one.held and one.held.has(Slice(j, j + 1))} for j in range(layers)
    ]
    if min(len(found) for found in owners) < RULES.copies:
        return
    speeds: dict[Slice, int] = {}
    for other in held:
        if other.held is not None:
            speeds[other.held] = speeds.get(other.held, 0) + other.speed_layer_rows_s
    least = least_slice(layers)
    frame = frame_of(speeds, layers, least)
    parts = fitting_slices(frame, layers, memory_layers=memory, least_layers=least)
    assert weakest_with(chosen) == max(weakest_with(part) for part in parts)


@given(grown_networks())
def test_routes_that_meet_end_to_end_carry_what_the_weakest_layer_carries(
    network: tuple[int, list[Holder]],
) -> None:
    layers, held = network
    weakest = min(layer_rates_mrows_s(held, layers))
    assert routed_mrows_s(held, layers) == weakest
    assert weakest <= bound_mrows_s(held, layers)


def test_slices_that_cross_carry_less_than_their_weakest_layer() -> None:
    crossing = [holder(1, 0, 4), holder(2, 2, 6), holder(3, 4, 6, speed=500)]
    assert min(layer_rates_mrows_s(crossing, 6)) == 250_000
    assert routed_mrows_s(crossing, 6) == 250_000
    assert routed_mrows_s(crossing[:2], 6) == 0 < min(layer_rates_mrows_s(crossing[:2], 6))


# --- leaving


def leaves(one: Holder, *others: Holder, layers: int, seed: bytes = SEED) -> bool:
    return may_leave(one, others, layers=layers, epoch=EPOCH, seed=seed, rules=RULES)


def test_a_last_holder_may_not_leave_and_who_serves_nothing_may() -> None:
    assert not leaves(holder(1, 0, 4), holder(2, 0, 3), layers=4)
    assert leaves(newcomer(1, 4), layers=4)
    assert leaves(replace(holder(1, 0, 4), is_serving=False), layers=4)


def test_of_two_last_holders_one_may_leave_each_epoch_and_both_get_their_chance() -> None:
    pair = (replace(holder(1, 0, 4), since_epoch=EPOCH), replace(holder(2, 0, 4), since_epoch=EPOCH))
    chances = set()
    for number in range(30):
        seed = bytes([number]) * 32
        may = (leaves(*pair, layers=4, seed=seed), leaves(*pair[::-1], layers=4, seed=seed))
        assert sum(may) == 1
        chances.add(may)
    assert len(chances) == 2


def test_who_moves_in_an_epoch_is_nobody_that_a_leaver_can_rely_on() -> None:
    pair = [holder(1, 0, 2), holder(2, 0, 2)]
    for number in range(30):
        seed = bytes([number]) * 32
        assert not any(leaves(one, *pair, layers=4, seed=seed) for one in pair)
    third = holder(3, 0, 2, speed=1)
    resting = [replace(one, since_epoch=EPOCH) for one in (*pair, third, holder(4, 2, 4))]
    assert any(leaves(one, *resting, layers=4) for one in resting[:3])


@given(wild_networks(), st.binary(min_size=32, max_size=32), st.data())
def test_leaving_and_moving_together_uncover_nothing(
    network: tuple[int, list[Holder]], seed: bytes, data: st.DataObject
) -> None:
    layers, holders = network
    plan = EpochPlan(holders, layers=layers, epoch=EPOCH, seed=seed, rules=RULES)
    decided = {one.provider: decision for one, decision in plan.decisions()}
    before: set[int] = set()
    kept: set[int] = set()
    for one in holders:
        if one.held is None or not one.is_serving:
            continue
        mine = set(range(one.held.first_layer, one.held.end_layer))
        before |= mine
        decision = decided.get(one.provider)
        if data.draw(st.booleans()) and leaves(one, *holders, layers=layers, seed=seed):
            continue
        if decision is not None and decision.why is not Why.STAY and decision.held is not None:
            if decision.why is Why.COVER:
                kept |= mine & set(range(decision.held.first_layer, decision.held.end_layer))
            continue
        kept |= mine
    assert kept == before


# --- seeds and models


def test_every_epoch_has_another_seed() -> None:
    seeds = {placement_seed(book, epoch) for book in (b"a" * 32, b"b" * 32) for epoch in range(5)}
    assert len(seeds) == 10


def test_the_model_with_least_of_what_is_asked_comes_first() -> None:
    full, half, none = Demand("full", 100, 90_000), Demand("half", 10, 4000), Demand("none", 5, 0)
    assert model_most_in_want([full, half], name(1)) == "half"
    assert model_most_in_want([full, half, none], name(1)) == "none"
    assert model_most_in_want([Demand("idle", 0, 0)], name(1)) is None
    assert model_most_in_want([Demand("idle", 0, 0), full], name(1)) == "full"


def test_of_models_that_lack_as_much_the_one_asked_more_comes_first_then_identity_decides() -> None:
    assert model_most_in_want([Demand("a", 10, 10), Demand("b", 20, 20)], name(1)) == "b"
    equal = [Demand("a", 10, 10), Demand("b", 10, 10)]
    assert {model_most_in_want(equal, name(number)) for number in range(20)} == {"a", "b"}
    assert all(
        model_most_in_want(equal, name(number)) == model_most_in_want(equal[::-1], name(number))
        for number in range(20)
    )
