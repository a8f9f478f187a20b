"""What holders give a layer, and who has a copy: counted again the slow way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.placement.holders import Holder
from dllm_protocol.placement.slices import Slice
from dllm_protocol.placement.supply import Copies, layer_rates_mrows_s, rate_mrows_s
from tests.dllm_protocol.placement.networks import holder, wild_networks


def test_a_holder_divides_its_speed_among_its_layers() -> None:
    assert rate_mrows_s(1000, 3) == 333_333
    held = [holder(1, 0, 4, speed=1000), holder(2, 2, 4, speed=10)]
    assert layer_rates_mrows_s(held, 5) == [250_000, 250_000, 255_000, 255_000, 0]


def layers_of(one: Holder) -> range:
    held = one.held or Slice(0, 0)
    return range(held.first_layer, held.end_layer)


def check(copies: Copies, holders: list[Holder], layers: int) -> None:
    holding = [[one for one in holders if layer in layers_of(one)] for layer in range(layers)]
    assert copies.holders == [len(found) for found in holding]
    assert copies.owners == [len({one.owner for one in found}) for found in holding]


@given(wild_networks(), st.data())
def test_copies_are_right_at_first_and_after_every_change(
    network: tuple[int, list[Holder]], data: st.DataObject
) -> None:
    layers, holders = network
    copies = Copies(holders, layers)
    check(copies, holders, layers)
    holding = [one for one in holders if one.held is not None]
    gone: list[Holder] = []
    for one in holding:
        if one.held is not None and data.draw(st.booleans()):
            copies.take(one.owner, one.held)
            gone.append(one)
            check(copies, [left for left in holding if left not in gone], layers)
    for one in gone:
        if one.held is not None:
            copies.add(one.owner, one.held)
    check(copies, holding, layers)


@given(wild_networks())
def test_the_least_of_a_slice_is_that_of_its_worst_layer(network: tuple[int, list[Holder]]) -> None:
    layers, holders = network
    copies = Copies(holders, layers)
    whole = Slice(0, layers)
    assert copies.least_owners(whole) == min(copies.owners)
    assert copies.least_holders(whole) == min(copies.holders)
