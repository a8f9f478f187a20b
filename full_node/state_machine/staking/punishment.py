"""What double signing costs: part of the stake, and the seat for good.

It is dealt with before a block's transactions, so that nobody saves stake in the very block that proves it.
"""

from __future__ import annotations

from dataclasses import replace

from dllm_protocol.pricing import PPM
from dllm_protocol.records import StakeUnbonding, ValidatorRecord
from dllm_protocol.results import Event
from full_node.state_machine.accounts.changes import burn
from full_node.state_machine.context import Misbehaviour, Scope, make_event
from full_node.state_machine.staking import view
from full_node.state_machine.staking.changes import write_validator
from full_node.state_machine.state import Overlay

UPDATE_DELAY_BLOCKS = 2
"""Stake that leaves in block H stands behind votes until H + 1: the set changes for H + 2."""


def punish(state: Overlay, scope: Scope) -> tuple[Event, ...]:
    """Slash and jail whoever the block proves to have misbehaved; what happened.

    Evidence against a stranger, against who is jailed already, or older than the evidence age changes nothing.
    """
    events = []
    for proven in scope.block.misbehaviour:
        validator = view.find_validator(state, proven.validator)
        is_due = scope.block.time_ms - proven.time_ms <= scope.params.evidence_age_ms
        if validator is not None and not validator.jailed and is_due:
            events.append(_slash(state, scope, validator, proven))
    return tuple(events)


def _slash(state: Overlay, scope: Scope, validator: ValidatorRecord, proven: Misbehaviour) -> Event:
    part_ppm = scope.params.slash_double_sign_ppm
    stake_udllm = _left(validator.stake_udllm, part_ppm)
    unbonding = tuple(_slashed(entry, proven.height, part_ppm) for entry in validator.unbonding)
    slashed = replace(
        validator,
        stake_udllm=stake_udllm,
        unbonding=tuple(entry for entry in unbonding if entry.amount_udllm),
        jailed=1,
    )
    burned_udllm = view.tokens_of(validator) - view.tokens_of(slashed)
    write_validator(state, slashed)
    burn(state, burned_udllm)
    return make_event(
        "validator_slashed",
        validator=proven.validator,
        kind=proven.kind.name.lower(),
        height=proven.height,
        burned_udllm=burned_udllm,
    )


def _slashed(entry: StakeUnbonding, height: int, part_ppm: int) -> StakeUnbonding:
    """An unbonding amount after the slash: untouched if it stood behind no vote of that height any more."""
    if entry.left_height + UPDATE_DELAY_BLOCKS <= height:
        return entry
    return replace(entry, amount_udllm=_left(entry.amount_udllm, part_ppm))


def _left(amount_udllm: int, part_ppm: int) -> int:
    return amount_udllm - amount_udllm * part_ppm // PPM
