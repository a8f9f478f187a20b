"""Validators for tests: their keys by name, their stakes, and proofs of what they did."""

from __future__ import annotations

from dataclasses import replace

from dllm_protocol import state_keys
from dllm_protocol.actions import Stake, Unstake
from dllm_protocol.actions.validators import prove_key
from dllm_protocol.params import Params
from dllm_protocol.records import Supply, ValidatorRecord
from dllm_protocol.results import ExecTxResult
from full_node.state_machine.context import Misbehaviour, MisbehaviourKind
from full_node.state_machine.state import read
from tests.full_node.state_machine.world import PARAMS, STAKE_UDLLM, World, address, signer

LEAST = STAKE_UDLLM
SEATS = 3
STAKING_PARAMS: Params = replace(PARAMS, max_validators=SEATS)


def staking(world: World, owner: str, key: str, amount_udllm: int = LEAST) -> Stake:
    """What stakes a person's tokens on a key by name, proof included."""
    proof = prove_key(signer(key), world.chain_id, address(owner))
    return Stake(signer(key).public_key, amount_udllm, proof)


def unstaking(key: str, amount_udllm: int = 0) -> Unstake:
    """What takes an amount back from a key by name."""
    return Unstake(address(key), amount_udllm)


def stake(world: World, owner: str, key: str, amount_udllm: int = LEAST) -> ExecTxResult:
    """Stake, successfully, in a block of its own."""
    return world.do(owner, staking(world, owner, key, amount_udllm))


def validator_of(world: World, key: str) -> ValidatorRecord | None:
    """What is staked on a key by name."""
    return read(world.reader, state_keys.validator(address(key)), ValidatorRecord)


def seats(world: World) -> dict[bytes, int]:
    """Power by consensus key, of the set as of the newest block (`World` holds it against the state's record)."""
    return {one.public_key: one.voting_power for one in world.validators.validators}


def burned(world: World) -> int:
    """udllm that were burned so far."""
    return world.record(state_keys.SUPPLY, Supply).burned_udllm


def double_signing(
    world: World,
    key: str,
    *,
    height: int = 0,
    age_ms: int = 0,
    kind: MisbehaviourKind = MisbehaviourKind.DUPLICATE_VOTE,
) -> Misbehaviour:
    """Proof, for the next block, that a key signed twice at a height (else the newest), so long before that block."""
    now_ms = world.time_ms + 200
    return Misbehaviour(kind, address(key), 1, height or world.height, now_ms - age_ms, 10)
