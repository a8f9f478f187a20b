"""Double signing: slashed, burned, jailed, and out of the set with the same block."""

from __future__ import annotations

import pytest

from dllm_protocol.actions import Stake
from dllm_protocol.refusals import ValidatorJailed
from full_node.state_machine.context import MisbehaviourKind
from tests.full_node.state_machine.validators import (
    LEAST,
    STAKING_PARAMS,
    burned,
    double_signing,
    seats,
    stake,
    staking,
    unstaking,
    validator_of,
)
from tests.full_node.state_machine.world import PARAMS, World, address, refused, signer

PART_PPM = PARAMS.slash_double_sign_ppm
LOST = LEAST * PART_PPM // 1_000_000


@pytest.fixture
def world() -> World:
    """Alice's validator beside the first one."""
    made = World(STAKING_PARAMS)
    stake(made, "alice", "a")
    return made


def key(name: str) -> bytes:
    return signer(name).public_key


@pytest.mark.parametrize("kind", list(MisbehaviourKind))
def test_who_signs_twice_loses_stake_and_seat_in_the_same_block(world: World, kind: MisbehaviourKind) -> None:
    outcome = world.block(misbehaviour=(double_signing(world, "a", kind=kind),))
    assert [(one.public_key, one.power) for one in outcome.validator_updates] == [(key("a"), 0)]
    held = validator_of(world, "a")
    assert held is not None
    assert (held.stake_udllm, held.jailed) == (LEAST - LOST, 1)
    assert burned(world) == LOST
    assert seats(world) == {key("validator"): 1_000}
    (event,) = outcome.events
    told = {attribute.key: attribute.value for attribute in event.attributes}
    assert event.type == "validator_slashed"
    assert told["validator"] == address("a").hex()
    assert told["kind"] == kind.name.lower()
    assert told["burned_udllm"] == str(LOST)


def test_evidence_comes_before_the_blocks_transactions(world: World) -> None:
    escape = world.sign("alice", unstaking("a", LEAST))
    raising = world.sign("alice", Stake(key("a"), 1, b""))
    outcome = world.block(escape, misbehaviour=(double_signing(world, "a"),))
    assert outcome.results[0].code != 0, "that much is no longer there"
    assert burned(world) == LOST
    refused(
        world.block(raising, world.sign("alice", Stake(key("a"), 1, b""), sequence=2)).results[1],
        ValidatorJailed,
    )


def test_a_second_proof_changes_nothing(world: World) -> None:
    proof = double_signing(world, "a")
    world.block(misbehaviour=(proof, proof))
    assert burned(world) == LOST
    again = world.block(misbehaviour=(double_signing(world, "a"),))
    assert again.changes == {}
    assert again.validator_updates == ()


def test_proof_against_a_stranger_changes_nothing(world: World) -> None:
    outcome = world.block(misbehaviour=(double_signing(world, "nobody"),))
    assert outcome.changes == {}
    assert outcome.events == ()


def test_proof_counts_up_to_the_evidence_age(world: World) -> None:
    old = world.block(misbehaviour=(double_signing(world, "a", age_ms=PARAMS.evidence_age_ms + 1),))
    assert old.changes == {}
    world.block(misbehaviour=(double_signing(world, "a", age_ms=PARAMS.evidence_age_ms),))
    assert burned(world) == LOST


def test_what_left_after_the_deed_is_slashed_and_what_left_before_is_not(world: World) -> None:
    world.do("alice", Stake(key("a"), 3 * LEAST, b""))
    left_at = []
    for _ in range(3):
        world.do("alice", unstaking("a", LEAST))
        left_at.append(world.height)
        world.block()
        world.block()
    # Stake that leaves in block H still stands behind votes of H + 1, no longer behind those of H + 2.
    world.block(misbehaviour=(double_signing(world, "a", height=left_at[1] + 1),))
    held = validator_of(world, "a")
    assert held is not None
    assert [entry.amount_udllm for entry in held.unbonding] == [LEAST, LEAST - LOST, LEAST - LOST]
    assert held.stake_udllm == LEAST - LOST
    assert burned(world) == 3 * LOST


def test_who_left_the_set_is_still_punished_while_its_stake_unbonds(world: World) -> None:
    height = world.height
    world.do("alice", unstaking("a", LEAST))
    outcome = world.block(misbehaviour=(double_signing(world, "a", height=height),))
    assert outcome.validator_updates == (), "it had no seat any more"
    assert burned(world) == LOST
    world.do("alice", unstaking("a"), after_ms=PARAMS.unbonding_ms)
    held = validator_of(world, "a")
    assert held is not None
    assert held.jailed, "the key is remembered when nothing is left"


def test_all_validators_at_once_lose_stake_and_the_set_stays_until_somebody_comes(world: World) -> None:
    before = seats(world)
    both = double_signing(world, "a"), double_signing(world, "validator")
    outcome = world.block(misbehaviour=both)
    assert outcome.validator_updates == ()
    assert burned(world) == 2 * LOST
    assert seats(world) == before, "a chain without validators is dead"
    stake(world, "bob", "b")
    assert seats(world) == {key("b"): 1_000}


def test_the_seat_of_a_jailed_validator_goes_to_who_waits(world: World) -> None:
    for owner, name in (("bob", "b"), ("carol", "c")):
        stake(world, owner, name, 2 * LEAST)
    waiting = next(name for name in ("a", "validator") if key(name) not in seats(world))
    world.block(misbehaviour=(double_signing(world, "b"),))
    assert key(waiting) in seats(world)
    assert key("b") not in seats(world)


def test_a_punished_validator_cannot_be_staked_on_by_another(world: World) -> None:
    world.block(misbehaviour=(double_signing(world, "a"),))
    assert world.send("bob", staking(world, "bob", "a")).code != 0
