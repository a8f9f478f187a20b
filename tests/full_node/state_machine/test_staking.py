"""Stakes, seats and unbonding."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nacl.bindings import crypto_core_ed25519_add

from dllm_protocol import state_keys
from dllm_protocol.actions import GrantChatKey, Stake, Transfer
from dllm_protocol.actions.validators import prove_key
from dllm_protocol.records import MAX_UNBONDING, Candidate, CandidateList, StakeUnbonding
from dllm_protocol.refusals import (
    BadConsensusKey,
    BadValue,
    ChatKeyNotAllowed,
    InsufficientFunds,
    LastValidator,
    NotAuthorised,
    OneSeat,
    StakeTooSmall,
    UnknownValidator,
    ValidatorJailed,
)
from dllm_protocol.staking import MAX_CANDIDATES, power_of_stake
from full_node.state_machine.staking import rules
from full_node.state_machine.staking.changes import write_validator
from tests.full_node.state_machine.validators import (
    LEAST,
    STAKING_PARAMS,
    double_signing,
    seats,
    stake,
    staking,
    unstaking,
    validator_of,
)
from tests.full_node.state_machine.world import (
    FEE_UDLLM,
    FUNDS_UDLLM,
    PARAMS,
    World,
    address,
    refused,
    signer,
)

LOW_ORDER = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
NOT_CANONICAL = b"\xff" * 31 + b"\x7f"


@pytest.fixture
def world() -> World:
    return World(STAKING_PARAMS)


def key(name: str) -> bytes:
    return signer(name).public_key


def test_a_stake_takes_a_seat_with_its_power(world: World) -> None:
    stake(world, "alice", "a", LEAST + 1_999_999)
    assert world.last is not None
    assert [(one.public_key, one.power) for one in world.last.validator_updates] == [(key("a"), 1_001)]
    assert seats(world) == {key("validator"): 1_000, key("a"): 1_001}
    assert world.balance("alice") == FUNDS_UDLLM - LEAST - 1_999_999 - FEE_UDLLM


def test_a_larger_stake_is_more_power(world: World) -> None:
    stake(world, "alice", "a")
    world.do("alice", Stake(key("a"), 500_000_000, b""))
    assert seats(world)[key("a")] == 1_500
    world.do("alice", unstaking("a", 200_000_000))
    assert seats(world)[key("a")] == 1_300


def test_power_is_whole_dllm_of_stake() -> None:
    assert [power_of_stake(n) for n in (0, 999_999, 1_000_000, 1_999_999)] == [0, 0, 1, 1]


def test_the_highest_stakes_have_the_seats_and_equal_ones_the_smaller_address(world: World) -> None:
    for owner, name in (("alice", "a"), ("bob", "b"), ("carol", "c")):
        stake(world, owner, name)
    equal = sorted(("validator", "a", "b", "c"), key=address)
    assert set(seats(world)) == {key(name) for name in equal[:3]}
    outside = equal[3]
    owners = {"a": "alice", "b": "bob", "c": "carol"}
    if outside in owners:
        world.do(owners[outside], Stake(key(outside), 1, b""))
    else:
        stake(world, "dave", outside := "d", LEAST + 1)
    assert key(outside) in seats(world)
    assert key(equal[2]) not in seats(world)


def test_a_seat_that_falls_free_goes_to_the_next(world: World) -> None:
    for owner, name, more in (("alice", "a", 3), ("bob", "b", 2), ("carol", "c", 1)):
        stake(world, owner, name, LEAST + more)
    assert key("validator") not in seats(world)
    world.do("bob", unstaking("b", LEAST + 2))
    assert set(seats(world)) == {key("a"), key("c"), key("validator")}


def test_a_stake_below_the_least_is_refused(world: World) -> None:
    refused(world.send("alice", staking(world, "alice", "a", LEAST - 1)), StakeTooSmall, LEAST - 1, LEAST)
    refused(world.send("alice", staking(world, "alice", "a", 0)), BadValue, "0 udllm")
    stake(world, "alice", "a")
    refused(world.send("alice", unstaking("a", 1)), StakeTooSmall, LEAST - 1)
    refused(world.send("alice", unstaking("a", LEAST + 1)), StakeTooSmall, LEAST + 1)
    refused(world.send("bob", staking(world, "bob", "b", FUNDS_UDLLM)), InsufficientFunds)


@pytest.mark.parametrize("public_key", [bytes(32), LOW_ORDER, NOT_CANONICAL], ids=lambda one: one.hex()[:8])
def test_a_key_that_is_no_sound_point_is_refused(world: World, public_key: bytes) -> None:
    refused(
        world.send("alice", Stake(public_key, LEAST, bytes(64))), BadConsensusKey, public_key, "low order"
    )


def test_a_key_with_a_part_of_low_order_is_refused(world: World) -> None:
    mixed = crypto_core_ed25519_add(key("a"), LOW_ORDER)
    refused(world.send("alice", Stake(mixed, LEAST, bytes(64))), BadConsensusKey, mixed, "low order")


def test_a_key_must_have_agreed_to_this_owner_on_this_chain(world: World) -> None:
    proofs = {
        "none": b"",
        "of another owner": prove_key(signer("a"), world.chain_id, address("bob")),
        "of another chain": prove_key(signer("a"), "other-1", address("alice")),
        "of another key": prove_key(signer("b"), world.chain_id, address("alice")),
    }
    for proof in proofs.values():
        refused(world.send("alice", Stake(key("a"), LEAST, proof)), BadConsensusKey, "did not agree")
    stake(world, "alice", "a")


def test_only_the_owner_touches_a_stake(world: World) -> None:
    stake(world, "alice", "a")
    refused(world.send("bob", staking(world, "bob", "a")), NotAuthorised, address("bob"), address("alice"))
    refused(world.send("bob", unstaking("a", 1)), NotAuthorised)
    refused(world.send("bob", unstaking("nobody's", 1)), UnknownValidator, address("nobody's"))
    world.do("alice", GrantChatKey(signer("chat").public_key, 10_000_000_000))
    refused(world.send("alice", unstaking("a"), key="chat"), ChatKeyNotAllowed)


def test_unstaked_tokens_come_back_after_the_unbonding_time_when_the_owner_asks(world: World) -> None:
    stake(world, "alice", "a", 2 * LEAST)
    world.do("alice", unstaking("a", LEAST))
    entry = StakeUnbonding(LEAST, world.time_ms + PARAMS.unbonding_ms, world.height)
    held = validator_of(world, "a")
    assert held is not None
    assert held.unbonding == (entry,)
    before = world.balance("alice")
    world.do("alice", unstaking("a"), after_ms=PARAMS.unbonding_ms - 1)
    assert world.balance("alice") == before - FEE_UDLLM
    assert world.block(after_ms=1).changes == {}, "nothing moves by itself"
    world.do("alice", Stake(key("a"), 1, b""))
    assert world.balance("alice") == before - 2 * FEE_UDLLM + LEAST - 1


def test_a_validator_that_took_everything_back_is_forgotten(world: World) -> None:
    stake(world, "alice", "a")
    world.do("alice", unstaking("a", LEAST))
    assert seats(world) == {key("validator"): 1_000}
    world.do("alice", unstaking("a"), after_ms=PARAMS.unbonding_ms)
    assert validator_of(world, "a") is None
    assert world.balance("alice") == FUNDS_UDLLM - 3 * FEE_UDLLM
    stake(world, "bob", "a")


def test_a_validator_may_come_back_while_its_stake_unbonds(world: World) -> None:
    stake(world, "alice", "a")
    world.do("alice", unstaking("a", LEAST))
    refused(world.send("alice", Stake(key("a"), LEAST - 1, b"")), StakeTooSmall)
    world.do("alice", Stake(key("a"), LEAST, b""))
    assert key("a") in seats(world)


def test_so_many_amounts_may_be_on_their_way_back(world: World) -> None:
    stake(world, "alice", "a", 2 * LEAST)
    for _ in range(MAX_UNBONDING):
        world.do("alice", unstaking("a", 1))
    refused(world.send("alice", unstaking("a", 1)), BadValue, MAX_UNBONDING)
    world.do("alice", unstaking("a", 1), after_ms=PARAMS.unbonding_ms)


def fund_staker(world: World) -> None:
    """The genesis validator's owner has nothing but its stake; let it pay fees."""
    world.do("erin", Transfer(address("staker"), 1_000_000))


def test_the_last_validator_cannot_leave(world: World) -> None:
    fund_staker(world)
    refused(world.send("staker", unstaking("validator", LEAST)), LastValidator, address("validator"))
    stake(world, "alice", "a")
    # Both ask in one block: the first goes, the second has to stay.
    leaving = world.sign("alice", unstaking("a", LEAST)), world.sign("staker", unstaking("validator", LEAST))
    results = world.block(*leaving).results
    assert results[0].code == 0
    refused(results[1], LastValidator, address("validator"))
    assert seats(world) == {key("validator"): 1_000}


def test_who_joins_and_leaves_in_one_block_was_never_there(world: World) -> None:
    joining = world.sign("alice", staking(world, "alice", "a"))
    leaving = world.sign("alice", unstaking("a", LEAST), sequence=1)
    outcome = world.block(joining, leaving)
    assert [one.code for one in outcome.results] == [0, 0]
    assert outcome.validator_updates == ()


def test_a_chain_of_one_seat_takes_no_newcomer() -> None:
    world = World(replace(PARAMS, max_validators=1))
    refused(world.send("alice", staking(world, "alice", "a", 5 * LEAST)), OneSeat)
    fund_staker(world)
    refused(world.send("staker", unstaking("validator", LEAST)), LastValidator)
    world.do("staker", Stake(key("validator"), 900_000, b""))
    assert seats(world) == {key("validator"): 1_000}, "less than one power more changes nothing"


def test_a_full_list_of_candidates_takes_only_who_has_more_than_its_last(world: World) -> None:
    state = world.overlay()
    crowd = tuple(
        Candidate(n.to_bytes(20, "big"), 5 * LEAST if n else 2 * LEAST)
        for n in (*range(1, MAX_CANDIDATES), 0)
    )
    state.write(state_keys.CANDIDATES, CandidateList(crowd))
    with pytest.raises(StakeTooSmall, match=str(2 * LEAST)):
        rules.check_stake(state, address("a"), 2 * LEAST, STAKING_PARAMS)
    rules.check_stake(state, address("a"), 2 * LEAST + 1, STAKING_PARAMS)
    held = validator_of(world, "validator")
    assert held is not None
    write_validator(state, replace(held, stake_udllm=2 * LEAST + 1))
    found = state.read(state_keys.CANDIDATES, CandidateList)
    assert found is not None
    assert len(found.entries) == MAX_CANDIDATES
    assert found.entries[-1] == Candidate(address("validator"), 2 * LEAST + 1), "the lowest fell off"


def test_a_jailed_validator_takes_no_stake_and_its_owner_gets_the_rest(world: World) -> None:
    stake(world, "alice", "a")
    world.block(misbehaviour=(double_signing(world, "a"),))
    refused(world.send("alice", Stake(key("a"), LEAST, b"")), ValidatorJailed, key("a"))
    left = LEAST - LEAST * PARAMS.slash_double_sign_ppm // 1_000_000
    before = world.balance("alice")
    world.do("alice", unstaking("a", left))
    world.do("alice", unstaking("a"), after_ms=PARAMS.unbonding_ms)
    assert world.balance("alice") == before - 2 * FEE_UDLLM + left
    held = validator_of(world, "a")
    assert held is not None, "the key stays known"
    assert held.jailed
    refused(world.send("bob", staking(world, "bob", "a")), NotAuthorised)
