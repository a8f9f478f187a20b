"""Slices dealt to workers, and what they ask."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from dllm_chat.devnet.slices import Slot, ask_of, deal, slots_of
from dllm_protocol.pricing import RowPrices, part_of
from tests.local_worker.test_settlement import MANIFEST


@pytest.mark.parametrize(("split", "count"), itertools.product(range(1, 17), range(1, 17)))
def test_every_slice_has_two_holders_and_the_load_is_even(split: int, count: int) -> None:
    workers = [f"worker-{number}" for number in range(1, count + 1)]
    slots = deal(split, workers)
    assert len(slots) == len(set(slots)) == split * min(count, 2)
    for number in range(split):
        of_slice = {slot.copy: slot.worker for slot in slots if slot.slice_ == number}
        assert of_slice[0] == workers[number % count]
        assert len(set(of_slice.values())) == len(of_slice) == min(count, 2)
    loads = [len(slots_of(slots, worker)) for worker in workers]
    assert max(loads) - min(loads) <= 1


def test_four_workers_with_three_slices() -> None:
    workers = ["a", "b", "c", "d"]
    assert deal(3, workers) == (
        *(Slot("a", 0, 0), Slot("b", 1, 0), Slot("c", 2, 0)),
        *(Slot("d", 0, 1), Slot("a", 1, 1), Slot("b", 2, 1)),
    )
    assert deal(0, workers) == deal(3, []) == ()


def test_second_holders_ask_a_little_more_and_nobody_too_much() -> None:
    manifest = replace(MANIFEST, layers=12, reserve_prices=RowPrices(400, 4000, 4000, 400))
    first, second = ask_of(manifest, 4, 0), ask_of(manifest, 4, 1)
    assert (first, second) == (RowPrices(66, 666, 666, 66), RowPrices(67, 667, 667, 67))
    for reserve in (RowPrices(0, 1, 12, 24), RowPrices(3, 35, 36, 37)):
        poor = replace(manifest, reserve_prices=reserve)
        for layers, copy in itertools.product((1, 4, 12), (0, 1)):
            assert ask_of(poor, layers, copy).within(part_of(reserve, layers, 12))
