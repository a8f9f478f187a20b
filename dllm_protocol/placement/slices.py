"""Slices of a model, and the cuts in force, read off what is held.

A chunk is served whole: hidden states enter it at its first layer and leave it behind its last. So a route can join
two slices only where one ends and the other begins, and layers held in slices that cross are held in vain. Slices
that *nest or lie apart* cannot come to that: then what exact routes can carry together is the throughput of the weakest
layer, neither less nor more (max flow = min layer; by induction over the tree: a slice carries its own rate beside
the least of what its parts carry).

The *frame* is such a family among the slices in use, those with the most speed first. The *cuts* are the binary tree
over [0, layers) that has every slice of the frame as a node: a part is divided at its middle, or, where that would cut
a slice of the frame in two or leave too few layers beside one, at the nearest end of a slice. With nothing held it is
plain halving. All parts have at least as many layers as an offer must.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Slice:
    """The consecutive layers [first_layer, end_layer) of a model."""

    first_layer: int
    end_layer: int

    @property
    def layers(self) -> int:
        """How many."""
        return self.end_layer - self.first_layer

    def has(self, other: Slice) -> bool:
        """Whether all of the other's layers are in this one."""
        return self.first_layer <= other.first_layer and other.end_layer <= self.end_layer


def frame_of(speeds: Mapping[Slice, int], layers: int, least_layers: int) -> tuple[Slice, ...]:
    """Slices in force: none crosses another, and no two of their ends are too near to each other, or to the model's;
    first layers ascend, of equal ones the longest comes first.

    O(S log S + F·L) for S distinct slices, F ≤ 2L of which are kept.

    Args:
        speeds: every slice in use with the speed of all who hold it; of two that cannot both be, the one with more
            stays (of equal ones the longer, then the earlier).
        layers: of the whole model, L.
        least_layers: how near ends may be.
    """
    kept: list[Slice] = []
    # Of the slices kept so far that have a cut point strictly inside: the first end, and the last beginning.
    nearest_end = [layers] * (layers + 1)
    nearest_first = [0] * (layers + 1)
    points = {0, layers}
    for one in sorted(speeds, key=lambda slice_: (-speeds[slice_], -slice_.layers, slice_)):
        if nearest_end[one.first_layer] < one.end_layer or nearest_first[one.end_layer] > one.first_layer:
            continue
        if any(_is_too_near(end, points, least_layers) for end in (one.first_layer, one.end_layer)):
            continue
        if one.layers < min(least_layers, layers):
            continue
        kept.append(one)
        points |= {one.first_layer, one.end_layer}
        for point in range(one.first_layer + 1, one.end_layer):
            nearest_end[point] = min(nearest_end[point], one.end_layer)
            nearest_first[point] = max(nearest_first[point], one.first_layer)
    return tuple(sorted(kept, key=lambda slice_: (slice_.first_layer, -slice_.end_layer)))


def _is_too_near(end: int, points: AbstractSet[int], least_layers: int) -> bool:
    """Whether a cut would leave too few layers between itself and another one."""
    if end in points:
        return False
    return any(point in points for point in range(end - least_layers + 1, end + least_layers))


def fitting_slices(
    frame: Sequence[Slice], layers: int, *, memory_layers: int, least_layers: int
) -> tuple[Slice, ...]:
    """The largest parts of the cuts that fit a memory, ascending; they lie apart.

    No part is smaller than ``least_layers``, so that a memory of less than twice as many may find no part that fits at
    some layers. Largest, because a route of fewer stages waits for fewer machines, and because a holder of k layers
    gives each one k-th of its speed, so that size takes nothing from the whole.

    Args:
        frame: from `frame_of`, in its order, with the same ``least_layers``.
        memory_layers: the most layers that fit.
    """
    found: list[Slice] = []
    whole = Slice(0, layers)
    parts = [(whole, [one for one in frame if one != whole])]
    while parts:
        part, inside = parts.pop()
        if part.layers <= memory_layers:
            found.append(part)
        elif inside or part.layers >= 2 * least_layers:
            cut = _cut_of(part, inside, least_layers)
            for half in (Slice(cut, part.end_layer), Slice(part.first_layer, cut)):
                parts.append((half, [one for one in inside if half.has(one) and one != half]))
    return tuple(found)


def _cut_of(part: Slice, inside: Sequence[Slice], least_layers: int) -> int:
    """Where a part is divided.

    Args:
        inside: slices of the frame that lie in the part and are smaller, in the frame's order.
    """
    middle = (part.first_layer + part.end_layer) // 2
    ends = {end for one in inside for end in (one.first_layer, one.end_layer)}
    ends -= {part.first_layer, part.end_layer}
    is_crossed = any(one.first_layer < middle < one.end_layer for one in inside)
    if not is_crossed and not _is_too_near(middle, ends, least_layers):
        return middle
    free = [end for end in ends if not any(one.first_layer < end < one.end_layer for one in inside)]
    return min(free, key=lambda end: (abs(end - middle), end))
