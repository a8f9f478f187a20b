"""Who may stake on a key, how much, and who may leave."""

from __future__ import annotations

from dllm_protocol.actions import Stake
from dllm_protocol.actions.validators import is_key_proved
from dllm_protocol.params import Params
from dllm_protocol.records import ValidatorRecord
from dllm_protocol.refusals import (
    BadConsensusKey,
    LastValidator,
    NotAuthorised,
    OneSeat,
    StakeTooSmall,
    ValidatorJailed,
)
from dllm_protocol.signing import is_sound_key
from dllm_protocol.staking import MAX_CANDIDATES
from full_node.state_machine.staking import view
from full_node.state_machine.state import StateReader


def check_newcomer(action: Stake, sender: bytes, chain_id: str, params: Params) -> None:
    """Whether a key that the chain does not know may begin to validate for the sender.

    Raises:
        OneSeat: whoever outbids the only validator would take the whole chain over, so nobody may.
        BadConsensusKey: verifiers would disagree about its signatures, or it is another's key.
    """
    if params.max_validators == 1:
        raise OneSeat(
            "the chain has 1 seat by its genesis, and it is taken",
            hint="stake on a network of several validators",
        )
    if not is_sound_key(action.public_key):
        raise BadConsensusKey(f"the key {action.public_key.hex()} is of low order or no key at all")
    if not is_key_proved(action.public_key, chain_id, sender, action.proof):
        raise BadConsensusKey(
            f"the key {action.public_key.hex()} did not agree to sign for the stake of {sender.hex()}",
            hint="have its node prove it: `dllm-node key --owner ADDRESS`",
        )


def check_owner(validator: ValidatorRecord, sender: bytes) -> None:
    """Raises NotAuthorised unless the owner asks."""
    if sender != validator.owner:
        raise NotAuthorised(
            f"{sender.hex()} asks, only the owner {validator.owner.hex()} may touch the stake"
        )


def check_not_jailed(validator: ValidatorRecord) -> None:
    """Raises ValidatorJailed."""
    if validator.jailed:
        raise ValidatorJailed(
            f"the key {validator.public_key.hex()} signed two blocks of one height and was jailed for good",
            hint="take the stake back and begin again with a new key",
        )


def check_stake(state: StateReader, address: bytes, stake_udllm: int, params: Params) -> None:
    """Raises StakeTooSmall: below the minimum, or below everyone on a full list."""
    if stake_udllm < params.min_stake_udllm:
        raise StakeTooSmall(
            f"the stake would be {stake_udllm} udllm, at least {params.min_stake_udllm} are needed"
        )
    others = [one for one in view.candidates(state) if one.validator != address]
    if len(others) >= MAX_CANDIDATES and stake_udllm <= others[-1].stake_udllm:
        raise StakeTooSmall(
            f"{len(others)} validators stand for a seat with {others[-1].stake_udllm} udllm or more each, "
            f"the stake would be {stake_udllm}"
        )


def check_somebody_stays(state: StateReader, address: bytes) -> None:
    """Raises LastValidator where nobody but this validator could take a seat."""
    if not any(one.validator != address for one in view.candidates(state)):
        raise LastValidator(
            f"the validator {address.hex()} is the last one",
            hint="leave at least the minimum staked, or wait for another validator",
        )
