"""A thousand providers that place themselves, beside the best that any placement of them could do.

The network, its churn and the bound are those of the simulation in ``tests/simulation``; each row is the seed whose
ratio is the median. The bound is proved, not searched for: no placement reaches more, and maybe none reaches it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmarks.runner import Result, interleaved_medians
from dllm_protocol.placement.rule import decide
from dllm_protocol.placement.slices import fitting_slices
from dllm_protocol.placement.supply import MILLI, rate_mrows_s
from dllm_protocol.ranked_book import least_slice
from tests.simulation.placement_bounds import bound_mrows_s, routed_mrows_s, searched_mrows_s
from tests.simulation.placement_world import Churn, PlacementWorld

NAME = "placement"
SEEDS = (1, 2, 3)
PROVIDERS = 1_000
A_TIME = 50
LAYERS = 80
CHURN = Churn(crash=5, leave=5, join=10)
CHURN_EPOCHS = 60
SETTLE_EPOCHS_MAX = 60
SWEEPS = 4
HOLDERS = 10_000
HOLDERS_LAYERS = 512
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """One seed's run; rates in thousandths of a row a second."""

    settled: int
    settled_bound: int
    routed: int
    searched: int
    lowest: int
    """Weakest layer of the epoch under churn that was furthest below its bound."""
    lowest_bound: int
    moves: int
    changes: int
    """Providers that came, left or crashed."""
    stages: float
    """Stages that a row passes, on average over rows."""
    fewest_stages: float
    """The same if everybody held as many layers as its memory has room for, and nothing were wasted."""


def run() -> Iterator[Result]:
    """Throughput settled and under churn, moves, stages, and the time of a decision."""
    found = [measure(seed) for seed in SEEDS]
    for row, ours, unit, against, theirs in (
        ("settled", "settled", "rows/s", "bound for any placement", "settled_bound"),
        ("searched", "settled", "rows/s", "local search that knows all", "searched"),
        ("routed", "routed", "rows/s", "weakest layer", "settled"),
        ("churn", "lowest", "rows/s", "bound for any placement", "lowest_bound"),
        ("moves", "moves", "moves", "providers that came or went", "changes"),
        ("stages", "stages", "stages", "every memory filled", "fewest_stages"),
    ):
        scale = MILLI if unit == "rows/s" else 1
        results = [
            Result.of(
                f"{NAME}/{row}", getattr(one, ours) / scale, unit, against, getattr(one, theirs) / scale
            )
            for one in found
        ]
        yield sorted(results, key=lambda result: result.ratio)[len(results) // 2]
    many, tenfold = decision_times()
    yield Result.of(f"{NAME}/decision", many, "ms", "a tenth of the holders, times ten", tenfold)


def measure(seed: int) -> Measured:
    """One network from its first provider on."""
    world = PlacementWorld(seed, layers=LAYERS)
    while len(world.holders) < PROVIDERS:
        world.step([world.newcomer() for _ in range(A_TIME)])
    world.settle(SETTLE_EPOCHS_MAX)
    holders = world.serving()
    settled, moves = world.weakest_mrows_s(), world.counts.moves
    came_or_went = world.counts.joins
    under_churn = []
    for _ in range(CHURN_EPOCHS):
        world.churn(1, CHURN)
        present = tuple(world.holders.values())
        under_churn.append((world.weakest_mrows_s(), bound_mrows_s(present, LAYERS)))
    lowest = min(under_churn, key=lambda pair: pair[0] / pair[1])
    counts = world.counts
    return Measured(
        settled=settled,
        settled_bound=bound_mrows_s(holders, LAYERS),
        routed=routed_mrows_s(holders, LAYERS),
        searched=searched_mrows_s(holders, LAYERS, sweeps=SWEEPS),
        lowest=lowest[0],
        lowest_bound=lowest[1],
        moves=counts.moves - moves,
        changes=counts.joins - came_or_went + counts.left + counts.crashes,
        stages=sum(rate_mrows_s(one.speed_layer_rows_s, one.held.layers) for one in holders if one.held)
        / settled,
        fewest_stages=sum(
            rate_mrows_s(one.speed_layer_rows_s, min(one.memory_layers, LAYERS)) for one in holders
        )
        * LAYERS
        / (MILLI * sum(one.speed_layer_rows_s for one in holders)),
    )


def decision_times() -> tuple[float, float]:
    """Milliseconds of a newcomer's decision among many holders, and ten times that among a tenth of them."""
    world = PlacementWorld(SEEDS[0], layers=HOLDERS_LAYERS)
    held = []
    least_layers = least_slice(HOLDERS_LAYERS)
    for number in range(HOLDERS):
        one = world.newcomer(memory_layers=HOLDERS_LAYERS >> number % 5)
        parts = fitting_slices((), HOLDERS_LAYERS, memory_layers=one.memory_layers, least_layers=least_layers)
        held.append(replace(one, held=world.rng.choice(parts)))
    newcomer = world.newcomer(memory_layers=HOLDERS_LAYERS // 8)

    def milliseconds(count: int) -> float:
        begins = time.perf_counter()
        decide(newcomer, held[:count], layers=HOLDERS_LAYERS, epoch=1, seed=bytes(32))
        return (time.perf_counter() - begins) * 1000

    return interleaved_medians(
        lambda: milliseconds(HOLDERS), lambda: 10 * milliseconds(HOLDERS // 10), rounds=ROUNDS
    )
