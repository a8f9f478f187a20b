"""Writing validators and the list of those who stand for a seat."""

from __future__ import annotations

from dataclasses import replace

from dllm_protocol import state_keys
from dllm_protocol.address import address_of
from dllm_protocol.records import Candidate, CandidateList, ValidatorRecord
from dllm_protocol.staking import MAX_CANDIDATES
from full_node.state_machine.accounts.changes import credit
from full_node.state_machine.context import ActionContext
from full_node.state_machine.staking import view
from full_node.state_machine.state import Overlay


def write_validator(state: Overlay, validator: ValidatorRecord) -> None:
    """Store a validator's record, and have it stand for a seat as long as it has stake and is not jailed.

    Nothing remains of a validator that never was jailed and has taken everything back. Where too many stand, the
    lowest falls off the list: its stake is untouched, and whatever its owner does next puts it up again.
    """
    address = address_of(validator.public_key)
    if validator.stake_udllm or validator.unbonding or validator.jailed:
        state.write(state_keys.validator(address), validator)
    else:
        state.delete(state_keys.validator(address))
    others = [one for one in view.candidates(state) if one.validator != address]
    if validator.stake_udllm and not validator.jailed:
        others.append(Candidate(address, validator.stake_udllm))
    ranked = sorted(others, key=lambda one: (-one.stake_udllm, one.validator))
    state.write(state_keys.CANDIDATES, CandidateList(tuple(ranked[:MAX_CANDIDATES])))


def collect_matured(ctx: ActionContext, validator: ValidatorRecord) -> ValidatorRecord:
    """Pay out stake whose unbonding time is over; return the validator without it."""
    now_ms = ctx.block.time_ms
    due = [entry for entry in validator.unbonding if entry.release_time_ms <= now_ms]
    credit(ctx.state, validator.owner, sum(entry.amount_udllm for entry in due))
    waiting = tuple(entry for entry in validator.unbonding if entry.release_time_ms > now_ms)
    return replace(validator, unbonding=waiting)
