"""What the best static placement of given providers could carry: a bound that is proved, a search that comes near it,
and what routes that meet end to end really carry."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

from dllm_protocol.placement.holders import Holder
from dllm_protocol.placement.slices import Slice
from dllm_protocol.placement.supply import MILLI, rate_mrows_s


def bound_mrows_s(holders: Sequence[Holder], layers: int) -> int:
    """No placement lets the weakest layer carry more: the most T with Σ min(1000·speed, memory·T) ≥ layers·T.

    Proof: where every layer carries T or more, count of what each holder gives a layer no more than T is needed of
    all: the layers need layers·T together. A holder gives no more than its speed in all, however it divides it, and
    what counts of it is at most T at each of the layers that it has memory for. The left side less the right is concave
    and 0 at T = 0, so that the values that satisfy it are an interval from 0.
    """

    def is_within_reach(rate: int) -> bool:
        useful = sum(
            min(MILLI * one.speed_layer_rows_s, min(one.memory_layers, layers) * rate) for one in holders
        )
        return useful >= layers * rate

    low, high = 0, 1 + MILLI * sum(one.speed_layer_rows_s for one in holders) // layers
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_within_reach(middle) else (low, middle)
    return low


def routed_mrows_s(holders: Sequence[Holder], layers: int) -> int:
    """What routes of slices that meet end to end carry together: the maximum flow from 0 to ``layers``, where each
    slice held is an edge from its first layer to its end (augmenting paths of fewest edges)."""
    room: defaultdict[int, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    for one in holders:
        if one.held is not None:
            rate = rate_mrows_s(one.speed_layer_rows_s, one.held.layers)
            room[one.held.first_layer][one.held.end_layer] += rate
    total = 0
    while path := _shortest_path(room, layers):
        pushed = min(room[start][end] for start, end in path)
        for start, end in path:
            room[start][end] -= pushed
            room[end][start] += pushed
        total += pushed
    return total


def _shortest_path(room: defaultdict[int, defaultdict[int, int]], layers: int) -> list[tuple[int, int]]:
    came_from: dict[int, int] = {0: 0}
    queue = deque([0])
    while queue and layers not in came_from:
        start = queue.popleft()
        for end in [end for end, free in room[start].items() if free and end not in came_from]:
            came_from[end] = start
            queue.append(end)
    path, point = [], layers
    while point in came_from and point:
        path.append((came_from[point], point))
        point = came_from[point]
    return path


def searched_mrows_s(holders: Sequence[Holder], layers: int, *, sweeps: int = 6) -> int:
    """The weakest layer of the best placement that a local search finds: any windows, of any length that fits, whether
    they meet or not. It knows all providers at once and moves them as often as it likes."""
    target = bound_mrows_s(holders, layers)
    rates = [0] * layers
    places: dict[bytes, Slice] = {}
    order = sorted(holders, key=lambda one: (-one.speed_layer_rows_s, one.provider))
    best = 0
    for _ in range(sweeps):
        for one in order:
            held = places.get(one.provider)
            if held is not None:
                _shift(rates, one, held, -1)
            places[one.provider] = _most_useful(rates, one, target)
            _shift(rates, one, places[one.provider], 1)
        best = max(best, min(rates))
    return best


def _shift(rates: list[int], one: Holder, held: Slice, sign: int) -> None:
    rate = sign * rate_mrows_s(one.speed_layer_rows_s, held.layers)
    for layer in range(held.first_layer, held.end_layer):
        rates[layer] += rate


def _most_useful(rates: Sequence[int], one: Holder, target: int) -> Slice:
    """The window in which most of a provider's speed goes to layers below the target; of equal ones the weakest."""
    layers = len(rates)
    longest = min(one.memory_layers, layers)
    found: tuple[tuple[int, int], Slice] | None = None
    for length in sorted({longest, (longest + 1) // 2, 1}):
        rate = rate_mrows_s(one.speed_layer_rows_s, length)
        useful = [min(rate, max(0, target - have)) for have in rates]
        for first in range(layers - length + 1):
            worth = (sum(useful[first : first + length]), -sum(rates[first : first + length]) // length)
            if found is None or worth > found[0]:
                found = (worth, Slice(first, first + length))
    if found is None:
        raise ValueError("a model without layers")
    return found[1]
