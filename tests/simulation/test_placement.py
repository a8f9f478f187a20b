"""A thousand providers of mixed speed and memory that join, leave, crash and decide for themselves, by seed.

The number in brackets is the seed: ``pytest "tests/simulation/test_placement.py" -k "[7]"`` replays it. Judged
by a bound that no placement of the same providers can exceed, whoever made it and with whatever knowledge.
"""

from __future__ import annotations

import pytest

from tests.simulation.placement_bounds import bound_mrows_s, routed_mrows_s, searched_mrows_s
from tests.simulation.placement_world import Churn, PlacementWorld, layers_without_holder

LAYERS = 80
WANTED_PERCENT = 90
AT_ANY_TIME_PERCENT = 75
"""While a hundredth of the providers goes and as many come each epoch, and whoever comes or moves still loads."""
CHURN = Churn(crash=5, leave=5, join=10)


def percent_of_bound(world: PlacementWorld) -> int:
    """The weakest layer now, of what the best placement of those present could carry, rounded down."""
    return 100 * world.weakest_mrows_s() // bound_mrows_s(tuple(world.holders.values()), world.layers)


def grown(seed: int, providers: int, *, a_time: int = 20, layers: int = LAYERS) -> PlacementWorld:
    """A network that providers have joined, so many in an epoch, none knowing of the others."""
    world = PlacementWorld(seed, layers=layers)
    while len(world.holders) < providers:
        world.step([world.newcomer() for _ in range(a_time)])
    return world


def check_settled(world: PlacementWorld) -> None:
    """Within a tenth of the bound, by routes that meet end to end, and nothing was ever taken away."""
    serving = world.serving()
    assert percent_of_bound(world) >= WANTED_PERCENT, f"seed {world.seed}: {world.counts}"
    assert routed_mrows_s(serving, world.layers) == world.weakest_mrows_s(), f"seed {world.seed}"
    assert world.taken_away == [], f"seed {world.seed}: layers {world.taken_away} lost their last copy"


def simulate(seed: int, providers: int, epochs: int, *, a_time: int = 20) -> None:
    """Joins, rest, churn, rest: what holds at each point."""
    world = grown(seed, providers, a_time=a_time)
    world.settle(60)
    check_settled(world)
    moved, most = world.counts.moves, max(1, providers * 2 * world.rules.movers_ppm // 1_000_000)
    for _ in range(epochs):
        before = world.counts.moves
        world.churn(1, CHURN)
        assert not layers_without_holder(world), f"seed {seed}, epoch {world.epoch}"
        assert percent_of_bound(world) >= AT_ANY_TIME_PERCENT, f"seed {seed}, epoch {world.epoch}"
        assert world.counts.moves - before <= most, f"seed {seed}, epoch {world.epoch}"
    # Fewer moves than providers that came or went: each of those cost a download, too.
    changes = world.counts.joins + world.counts.crashes + world.counts.left
    assert world.counts.moves - moved < changes - providers, f"seed {seed}: {world.counts}"
    world.settle(60)
    check_settled(world)


def test_a_thousand_providers_settle_within_a_tenth_of_the_best() -> None:
    simulate(1, 1000, epochs=6, a_time=50)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 12))
def test_a_thousand_providers_over_many_seeds(seed: int) -> None:
    simulate(seed, 1000, epochs=100)


@pytest.mark.parametrize("seed", range(4))
def test_two_hundred_providers(seed: int) -> None:
    simulate(seed, 200, epochs=20)


@pytest.mark.parametrize("seed", range(3))
def test_who_came_all_at_once_and_blindly_is_evened_out(seed: int) -> None:
    world = grown(seed, 200, layers=32)
    world.settle(60)
    world.step([world.newcomer() for _ in range(100)])
    world.settle(60)
    check_settled(world)


@pytest.mark.parametrize("seed", range(6))
def test_a_gap_that_crashes_left_is_covered_by_who_can_be_spared(seed: int) -> None:
    world = grown(seed, 80, layers=32)
    world.settle(60)
    for layer in (world.rng.randrange(32), world.rng.randrange(32)):
        for one in list(world.holders.values()):
            if one.held is not None and one.held.first_layer <= layer < one.held.end_layer:
                del world.holders[one.provider]
    assert layers_without_holder(world)
    for _ in range(3):
        world.step()
    assert not layers_without_holder(world), f"seed {seed}"
    assert world.taken_away == []


@pytest.mark.parametrize("seed", range(10))
def test_in_a_small_network_only_crashes_take_the_last_copy_away(seed: int) -> None:
    world = PlacementWorld(seed, layers=22, owners=5)
    for _ in range(10):
        world.step([world.newcomer()])
    world.churn(120, Churn(crash=20, leave=60, join=80))
    assert world.taken_away == [], f"seed {seed}, epoch {world.epoch}"
    assert world.counts.crashes and world.counts.left, f"seed {seed}: nothing happened, {world.counts}"


@pytest.mark.parametrize("seed", range(3))
def test_a_search_that_knows_and_moves_everybody_finds_little_more(seed: int) -> None:
    world = grown(seed, 120, layers=32)
    world.settle(60)
    found = searched_mrows_s(tuple(world.holders.values()), 32)
    assert found <= bound_mrows_s(tuple(world.holders.values()), 32)
    assert 100 * world.weakest_mrows_s() >= WANTED_PERCENT * found, f"seed {seed}"
