"""What placement refuses to reckon with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.offer_book import MAX_ENTRIES
from dllm_protocol.placement.holders import Holder, PlacementRefused, PlacementRules, check_holders
from dllm_protocol.placement.slices import Slice
from tests.dllm_protocol.placement.networks import holder, name, newcomer


def test_holders_come_back_by_provider() -> None:
    assert check_holders([holder(2, 0, 1), newcomer(1, 3)], 4) == (newcomer(1, 3), holder(2, 0, 1))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (holder(7, 2, 5), "holds layers 2:5 of a model of 4"),
        (replace(holder(7, 2, 4), held=Slice(3, 3)), "holds layers 3:3"),
        (replace(holder(7, 2, 4), held=Slice(-1, 2)), "holds layers -1:2"),
        (newcomer(7, 0), "memory for 0 layers"),
        (newcomer(7, 1, speed=0), "speed 0"),
        (newcomer(7, 1, speed=1 << 41), "speed 2199023255552"),
    ],
)
def test_a_holder_that_cannot_be_is_named(wrong: Holder, said: str) -> None:
    with pytest.raises(PlacementRefused, match=said) as refused:
        check_holders([holder(1, 0, 4), wrong], 4)
    assert name(7).hex() in refused.value.message


def test_a_provider_named_twice_is_refused() -> None:
    with pytest.raises(PlacementRefused, match="named twice"):
        check_holders([holder(1, 0, 4), holder(1, 0, 2)], 4)


@pytest.mark.parametrize("layers", [0, -1, 513])
def test_a_model_of_impossible_size_is_refused(layers: int) -> None:
    with pytest.raises(PlacementRefused, match=f"a model of {layers} layers"):
        check_holders([], layers)


def test_more_holders_than_a_book_has_room_for_are_refused() -> None:
    one = newcomer(0, 1)
    with pytest.raises(PlacementRefused, match="at most"):
        check_holders([one] * (MAX_ENTRIES + 1), 4)


@pytest.mark.parametrize(
    "wrong",
    [{"copies": 0}, {"gain_ppm": 0}, {"rest_epochs": -1}, {"movers_ppm": 1_000_001}, {"least_layers": 0}],
)
def test_rules_that_damp_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(PlacementRefused, match="no rules"):
        PlacementRules(**wrong)
