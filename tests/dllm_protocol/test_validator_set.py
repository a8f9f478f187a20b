"""Validator sets: order, hash, rotation of proposers, updates."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol import merkle
from dllm_protocol.block_errors import InvalidBlock, MalformedBlock
from dllm_protocol.validator_set import TOTAL_POWER_MAX, Validator, ValidatorSet, address_of


def _validator(name: str, power: int, priority: int = 0) -> Validator:
    return Validator(sha256(name.encode()).digest(), power, priority)


def _set(powers: list[int]) -> ValidatorSet:
    return ValidatorSet.genesis(_validator(f"v{number}", power) for number, power in enumerate(powers))


POWERS = st.lists(st.integers(1, 10**6), min_size=1, max_size=12)


def test_order_is_power_then_address() -> None:
    members = ValidatorSet(tuple(_validator(f"v{n}", power) for n, power in enumerate([5, 9, 5, 5])))
    assert [one.voting_power for one in members.validators] == [9, 5, 5, 5]
    equals = [one.address for one in members.validators[1:]]
    assert equals == sorted(equals)
    assert members.total_power == 24
    assert members.index_of(members.validators[2].address) == 2
    assert members.by_address(bytes(20)) is None


def test_hash_covers_key_and_power_only() -> None:
    one = _validator("a", 300, 7)
    leaf = bytes.fromhex("0a220a20") + one.public_key + bytes.fromhex("10ac02")
    assert one.encode_simple() == leaf
    assert ValidatorSet((one,)).hash() == merkle.root([leaf])
    assert ValidatorSet((replace(one, proposer_priority=9),)).hash() == merkle.root([leaf])
    assert one.address == address_of(one.public_key) == sha256(one.public_key).digest()[:20]
    assert ValidatorSet(()).hash() == merkle.EMPTY_ROOT


@given(POWERS)
def test_bytes_lead_back(powers: list[int]) -> None:
    members = _set(powers)
    again = ValidatorSet.decode(members.encode())
    assert again == members
    assert again.proposer == members.proposer


def test_another_address_in_the_bytes_is_refused() -> None:
    encoded = bytearray(_validator("a", 5).encode())
    encoded[2] ^= 1
    with pytest.raises(MalformedBlock, match="is not that of its key"):
        Validator.decode(bytes(encoded))


def test_proposers_rotate_as_in_go() -> None:
    """CometBFT's own sequence for powers 1000, 300 and 330 (types/validator_set_test.go, TestProposerSelection1)."""
    names = {"foo": 1000, "bar": 300, "baz": 330}
    called = {_validator(name, power).address: name for name, power in names.items()}
    members = ValidatorSet.genesis(_validator(name, power) for name, power in names.items())
    proposed = []
    for _ in range(41):
        proposed.append(called[members.proposer.address])
        members = members.incremented(1)
    assert " ".join(proposed) == (
        "foo baz foo bar foo foo baz foo bar foo foo baz foo foo bar foo baz foo foo bar "
        "foo foo baz foo bar foo foo baz foo bar foo foo baz foo foo bar foo baz foo foo bar"
    )


@given(POWERS, st.integers(1, 5))
def test_several_turns_are_single_turns(powers: list[int], turns: int) -> None:
    at_once = step = _set(powers)
    at_once = at_once.incremented(turns)
    for _ in range(turns):
        step = step.incremented(1)
    assert at_once.proposer == step.proposer


@given(POWERS)
def test_proposing_is_proportional_to_power(powers: list[int]) -> None:
    members = _set([min(power, 5) for power in powers])
    turns = members.total_power
    counted = dict.fromkeys((one.address for one in members.validators), 0)
    for _ in range(turns):
        counted[members.proposer.address] += 1
        members = members.incremented(1)
    assert counted == {one.address: one.voting_power for one in members.validators}
    spread = [one.proposer_priority for one in members.validators]
    assert max(spread) - min(spread) <= 2 * members.total_power


def test_updates_add_change_and_remove() -> None:
    members = _set([10, 10, 10])
    first, second = members.validators[:2]
    newcomer = _validator("new", 30)
    changed = members.with_updates(
        [replace(first, voting_power=20), replace(second, voting_power=0), newcomer]
    )
    assert {one.address: one.voting_power for one in changed.validators} == {
        newcomer.address: 30,
        first.address: 20,
        members.validators[2].address: 10,
    }
    joined = changed.by_address(newcomer.address)
    assert joined is not None
    assert joined.proposer_priority == min(one.proposer_priority for one in changed.validators)
    assert members.with_updates([]) is members


def test_impossible_updates_are_refused() -> None:
    members = _set([10, 10])
    first, second = members.validators
    for updates, words in (
        ([first, first], "name only 1"),
        ([_validator("stranger", 0)], "not in the set"),
        ([replace(first, voting_power=0), replace(second, voting_power=0)], "remove all 2"),
        ([replace(first, voting_power=TOTAL_POWER_MAX)], "above"),
    ):
        with pytest.raises(InvalidBlock, match=words):
            members.with_updates(updates)


def test_impossible_sets_are_refused() -> None:
    one = _validator("a", 1)
    with pytest.raises(InvalidBlock, match="only 1 addresses"):
        ValidatorSet((one, replace(one, voting_power=2)))
    with pytest.raises(InvalidBlock, match="has no voting power"):
        ValidatorSet((replace(one, voting_power=0),))
    with pytest.raises(InvalidBlock, match="total voting power"):
        ValidatorSet((_validator("a", TOTAL_POWER_MAX), _validator("b", 1)))
    with pytest.raises(InvalidBlock, match="31 bytes"):
        Validator(bytes(31), 1)
    with pytest.raises(InvalidBlock, match="empty validator set has no proposer"):
        ValidatorSet(()).incremented(1)
