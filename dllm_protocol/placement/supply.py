"""What holders give each layer, and how many owners have a copy of it.

A holder of k layers with speed s (row-layers a second) gives each of them ⌊1000·s / k⌋ thousandths of a row a second.
A layer's throughput is the sum over its holders, a model's is that of its weakest layer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate

from dllm_protocol.placement.holders import Holder
from dllm_protocol.placement.slices import Slice

MILLI = 1000


def rate_mrows_s(speed_layer_rows_s: int, slice_layers: int) -> int:
    """What one holder gives each layer of its slice, in thousandths of a row a second, rounded down."""
    return MILLI * speed_layer_rows_s // slice_layers


def layer_rates_mrows_s(holders: Iterable[Holder], layers: int) -> list[int]:
    """Throughput of each layer, in thousandths of a row a second; O(holders + layers)."""
    steps = [0] * (layers + 1)
    for one in holders:
        if one.held is not None:
            rate = rate_mrows_s(one.speed_layer_rows_s, one.held.layers)
            steps[one.held.first_layer] += rate
            steps[one.held.end_layer] -= rate
    return list(accumulate(steps))[:layers]


class Copies:
    """By how many holders each layer is held, and by how many owners: what an owner holds twice is one owner's."""

    def __init__(self, holders: Iterable[Holder], layers: int) -> None:
        self._slices: defaultdict[bytes, list[Slice]] = defaultdict(list)
        for one in holders:
            if one.held is not None:
                self._slices[one.owner].append(one.held)
        holder_steps, owner_steps = [0] * (layers + 1), [0] * (layers + 1)
        for slices in self._slices.values():
            end = 0
            for held in sorted(slices):
                holder_steps[held.first_layer] += 1
                holder_steps[held.end_layer] -= 1
                first = max(held.first_layer, end)
                if first < held.end_layer:
                    owner_steps[first] += 1
                    owner_steps[held.end_layer] -= 1
                    end = held.end_layer
        self.holders = list(accumulate(holder_steps))[:layers]
        """Of each layer."""
        self.owners = list(accumulate(owner_steps))[:layers]
        """Of each layer."""

    def only_in(self, owner: bytes, slice_: Slice) -> list[int]:
        """Layers of a slice that its owner holds in no other; O(slice + what the owner holds)."""
        others = [False] * slice_.layers
        for one in self._slices[owner]:
            first = max(one.first_layer, slice_.first_layer) - slice_.first_layer
            end = min(one.end_layer, slice_.end_layer) - slice_.first_layer
            if first < end:
                others[first:end] = [True] * (end - first)
        return [slice_.first_layer + place for place, is_held in enumerate(others) if not is_held]

    def take(self, owner: bytes, slice_: Slice) -> None:
        """One holder of a slice no longer counts."""
        self._slices[owner].remove(slice_)
        self._change(owner, slice_, -1)

    def add(self, owner: bytes, slice_: Slice) -> None:
        """One holder more."""
        self._change(owner, slice_, 1)
        self._slices[owner].append(slice_)

    def _change(self, owner: bytes, slice_: Slice, by: int) -> None:
        for layer in range(slice_.first_layer, slice_.end_layer):
            self.holders[layer] += by
        for layer in self.only_in(owner, slice_):
            self.owners[layer] += by

    def least_holders(self, slice_: Slice) -> int:
        """Holders of the layer of a slice that has the fewest."""
        return min(self.holders[slice_.first_layer : slice_.end_layer])

    def least_owners(self, slice_: Slice) -> int:
        """Owners of the layer of a slice that has the fewest."""
        return min(self.owners[slice_.first_layer : slice_.end_layer])
