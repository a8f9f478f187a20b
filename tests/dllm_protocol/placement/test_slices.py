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
    frame = frame_of(dict.fromkeys(held, 1), layers, least)
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
    assert frame_of(crossing, LAYERS, 1) == (Slice(8, 16), Slice(12, 16))
    assert frame_of({**crossing, Slice(0, 12): 7}, LAYERS, 1) == (Slice(0, 12), Slice(12, 16))


def test_ends_that_leave_too_little_between_them_are_not_both_in_force() -> None:
    close = {Slice(0, 11): 5, Slice(12, 24): 4}
    assert frame_of(close, LAYERS, 1) == (Slice(0, 11), Slice(12, 24))
    assert frame_of(close, LAYERS, 2) == (Slice(0, 11),)
    assert parts(Slice(0, 15), layers=32, memory=16, least=2) == [(0, 15), (15, 23), (23, 32)]
    assert frame_of({Slice(0, 23): 1, Slice(3, 4): 1}, LAYERS, 2) == ()


def can_both_be(one: Slice, other: Slice, least: int) -> bool:
    """Whether two slices may be in force together."""
    ends = {0, LAYERS, one.first_layer, one.end_layer, other.first_layer, other.end_layer}
    return not crosses(one, other) and all(
        after - before >= least for before, after in pairwise(sorted(ends))
    )


leasts = st.integers(1, 4)


@given(used, leasts)
def test_slices_in_force_can_all_be_and_what_is_left_out_cannot_be_beside_a_faster_one(
    speeds: dict[Slice, int], least: int
) -> None:
    frame = frame_of(speeds, LAYERS, least)
    assert all(can_both_be(one, other, least) for one in frame for other in frame)
    for left_out in set(speeds) - set(frame):
        assert not can_both_be(left_out, left_out, least) or any(
            not can_both_be(left_out, one, least) and speeds[one] >= speeds[left_out] for one in frame
        )


@given(used, leasts)
def test_the_order_in_which_slices_are_named_does_not_matter(speeds: dict[Slice, int], least: int) -> None:
    again = dict(sorted(speeds.items(), reverse=True))
    assert frame_of(speeds, LAYERS, least) == frame_of(again, LAYERS, least)


@given(used, st.integers(1, LAYERS), leasts)
def test_parts_fit_lie_apart_are_no_smaller_than_the_least_and_cross_nothing_in_force(
    speeds: dict[Slice, int], memory: int, least: int
) -> None:
    frame = frame_of(speeds, LAYERS, least)
    found = fitting_slices(frame, LAYERS, memory_layers=memory, least_layers=least)
    assert all(one.end_layer <= following.first_layer for one, following in pairwise(found))
    assert all(least <= one.layers <= memory for one in found)
    assert not any(crosses(one, other) for one in found for other in frame)
    if memory >= 2 * least - 1:
        assert sum(one.layers for one in found) == LAYERS


@given(used, leasts)
def test_every_slice_in_force_is_a_part_for_who_has_just_its_memory(
    speeds: dict[Slice, int], least: int
) -> None:
    frame = frame_of(speeds, LAYERS, least)
    for one in frame:
        assert one in fitting_slices(frame, LAYERS, memory_layers=one.layers, least_layers=least)


@given(used, st.integers(1, LAYERS), st.integers(1, LAYERS), leasts)
def test_parts_of_different_memories_never_cross(
    speeds: dict[Slice, int], small: int, large: int, least: int
) -> None:
    frame = frame_of(speeds, LAYERS, least)
    for one in fitting_slices(frame, LAYERS, memory_layers=small, least_layers=least):
        for other in fitting_slices(frame, LAYERS, memory_layers=large, least_layers=least):
            assert not crosses(one, other)
