from __future__ import annotations

import random

import pytest

from dllm_chat.wallet.verification import pick_positions, wrong_positions
from tests.dllm_chat.wallet.parts import MNEMONIC


def test_four_distinct_positions_are_picked_and_every_one_can_be() -> None:
    chance = random.Random(5)
    seen: set[int] = set()
    for _ in range(200):
        positions = pick_positions(12, chance=chance)
        assert len(set(positions)) == 4
        assert list(positions) == sorted(positions)
        seen.update(positions)
    assert seen == set(range(1, 13))
    assert pick_positions(12, chance=random.Random(1)) == pick_positions(12, chance=random.Random(1))
    assert set(pick_positions(24)) <= set(range(1, 25))


def test_more_than_all_cannot_be_asked() -> None:
    with pytest.raises(ValueError, match="13 of 12"):
        pick_positions(12, 13)


def test_right_and_wrong_answers() -> None:
    words = MNEMONIC.split()
    right = {position: f" {words[position - 1].upper()} " for position in (1, 4, 8, 12)}
    assert wrong_positions(MNEMONIC, right) == ()
    assert wrong_positions(MNEMONIC, {**right, 4: "wave", 8: ""}) == (4, 8)
    assert wrong_positions(MNEMONIC, {0: "legal", 13: "legal", -1: "yellow", 1: "légal"}) == (-1, 0, 1, 13)
