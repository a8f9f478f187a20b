"""The cuts in force: slices of a frame never cross, and the parts of a model nest around them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.placement.slices import Slice, fitting_slices, frame_of
from tests.dllm_protocol.placement.networks import slices

LAYERS = 24


def crosses(one: Slice, other: Slice) -> bool:
    """Whether they overlap without one lying in the other."""
    overlap = max(one.first_layer, other.first_layer) < min(one.end_layer, other.end_layer)
    return overlap and not one.has(other) and not other.has(one)


used = st.dictionaries(slices(LAYERS), st.integers(1, 100), max_size=20)


def parts(*held: Slice, layers: int = 32, memory: int, least: int = 1) -> list[tuple[int, int]]:
    """Ends of the parts that fit a memory where the slices are held."""
    frame = frame_of(dict.fromkeys(held, 1), layers)
    found = fitting_slices(frame, layers, memory_layers=memory, least_layers=least)
    return [(one.first_layer, one.end_layer) for one in found]


def test_with_nothing_held_the_model_is_halved_until_a_part_fits() -> None:
    assert parts(memory=40) == [(0, 32)]
    assert parts(memory=31) == [(0, 16), (16, 32)]
    assert parts(memory=8, layers=22) == [(0, 5), (5, 11), (11, 16), (16, 22)]


def test_a_part_is_divided_where_what_is_held_ends() -> None:
    assert parts(Slice(0, 20), Slice(20, 32), memory=20) == [(0, 20), (20, 32)]
    assert parts(Slice(0, 20), Slice(20, 32), memory=15) == [(0, 10), (10, 20), (20, 32)]
    assert parts(Slice(0, 20), memory=15) == [(0, 10), (10, 20), (20, 32)]


def test_parts_are_not_divided_below_the_least() -> None:
    assert parts(memory=8, least=8) == [(0, 8), (8, 16), (16, 24), (24, 32)]
    assert parts(memory=7, least=8) == []


def test_of_two_slices_that_cross_the_one_with_more_speed_is_in_force() -> None:
    crossing = {Slice(0, 12): 5, Slice(8, 16): 6, Slice(12, 16): 1}
    assert frame_of(crossing, LAYERS) == (Slice(8, 16), Slice(12, 16))
    assert frame_of({**crossing, Slice(0, 12): 7}, LAYERS) == (Slice(0, 12), Slice(12, 16))


@given(used)
def test_slices_in_force_do_not_cross_and_what_is_left_out_crosses_a_faster_one(
    speeds: dict[Slice, int],
) -> None:
    frame = frame_of(speeds, LAYERS)
    assert not any(crosses(one, other) for one in frame for other in frame)
    for left_out in set(speeds) - set(frame):
        assert any(crosses(left_out, one) and speeds[one] >= speeds[left_out] for one in frame)


@given(used)
def test_the_order_in_which_slices_are_named_does_not_matter(speeds: dict[Slice, int]) -> None:
    assert frame_of(speeds, LAYERS) == frame_of(dict(sorted(speeds.items(), reverse=True)), LAYERS)


@given(used, st.integers(1, LAYERS))
def test_parts_fit_lie_end_to_end_over_all_layers_and_cross_nothing_in_force(
    speeds: dict[Slice, int], memory: int
) -> None:
    frame = frame_of(speeds, LAYERS)
    found = fitting_slices(frame, LAYERS, memory_layers=memory, least_layers=1)
    ends = [(one.first_layer, one.end_layer) for one in found]
    assert ends[0][0] == 0
    assert ends[-1][1] == LAYERS
    assert all(one[1] == following[0] for one, following in pairwise(ends))
    assert all(one.layers <= memory for one in found)
    assert not any(crosses(one, other) for one in found for other in frame)


@given(used)
def test_every_slice_in_force_is_a_part_for_who_has_just_its_memory(speeds: dict[Slice, int]) -> None:
    frame = frame_of(speeds, LAYERS)
    for one in frame:
        assert one in fitting_slices(frame, LAYERS, memory_layers=one.layers, least_layers=1)


@given(used, st.integers(1, LAYERS), st.integers(1, LAYERS))
def test_parts_of_different_memories_never_cross(speeds: dict[Slice, int], small: int, large: int) -> None:
    frame = frame_of(speeds, LAYERS)
    for one in fitting_slices(frame, LAYERS, memory_layers=small, least_layers=1):
        for other in fitting_slices(frame, LAYERS, memory_layers=large, least_layers=1):
            assert not crosses(one, other)
