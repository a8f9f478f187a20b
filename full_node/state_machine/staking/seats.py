"""Who has a seat: the highest stakes, worked out once at the end of a block in which a stake changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dllm_protocol import state_keys
from dllm_protocol.address import address_of
from dllm_protocol.params import Params
from dllm_protocol.records import SeatedValidator, SeatedValidators
from dllm_protocol.staking import power_of_stake
from full_node.state_machine.staking import view
from full_node.state_machine.state import Overlay


@dataclass(frozen=True, slots=True)
class ValidatorUpdate:
    """A validator's new voting power, as engines take it."""

    public_key: bytes
    """Ed25519, 32 bytes."""
    power: int
    """0 removes it."""


def assign_seats(state: Overlay, params: Params) -> tuple[ValidatorUpdate, ...]:
    """Give the seats to the highest stakes; what changes by that.

    Where nobody is left to take a seat, the set stays as it was: a chain that nobody may sign is dead for good,
    and even a newcomer's stake could not end that.

    Returns:
        Updates that the engine's set takes as they are: each key once, none that removes a stranger, somebody left.
    """
    if not state.has_changed(state_keys.CANDIDATES):
        return ()
    chosen = _with_power(state, params)
    if not chosen:
        return ()
    before = view.seated(state)
    state.write(state_keys.VALIDATORS, SeatedValidators(chosen))
    return updates_between(before, chosen)


def updates_between(
    before: Iterable[SeatedValidator], after: Iterable[SeatedValidator]
) -> tuple[ValidatorUpdate, ...]:
    """What turns one set into another, ascending by address."""
    old = {one.public_key: one.power for one in before}
    new = {one.public_key: one.power for one in after}
    changed = [ValidatorUpdate(key, 0) for key in old if key not in new]
    changed += [ValidatorUpdate(key, power) for key, power in new.items() if old.get(key) != power]
    return tuple(sorted(changed, key=lambda one: address_of(one.public_key)))


def _with_power(state: Overlay, params: Params) -> tuple[SeatedValidator, ...]:
    seats = []
    for candidate in view.candidates(state)[: params.max_validators]:
        validator = view.find_validator(state, candidate.validator)
        assert validator is not None, "candidates are written together with their records"
        seats.append(SeatedValidator(validator.public_key, power_of_stake(candidate.stake_udllm)))
    return tuple(sorted(seats, key=lambda one: (-one.power, address_of(one.public_key))))
