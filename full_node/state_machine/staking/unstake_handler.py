"""Taking stake back, and collecting what is due."""

from __future__ import annotations

from dataclasses import replace

from dllm_protocol.actions import Unstake
from dllm_protocol.records import MAX_UNBONDING, StakeUnbonding, ValidatorRecord
from dllm_protocol.refusals import BadValue, StakeTooSmall
from full_node.state_machine.context import ActionContext
from full_node.state_machine.staking import rules, view
from full_node.state_machine.staking.changes import collect_matured, write_validator


def unstake(ctx: ActionContext, action: Unstake) -> None:
    """Start taking stake back; an amount of 0 only collects what is due."""
    # CHECK
    validator = view.validator(ctx.state, action.validator)
    rules.check_owner(validator, ctx.sender)
    if action.amount_udllm > validator.stake_udllm:
        raise StakeTooSmall(f"{action.amount_udllm} udllm are to leave a stake of {validator.stake_udllm}")
    remaining_udllm = validator.stake_udllm - action.amount_udllm
    if action.amount_udllm and not validator.jailed:
        if remaining_udllm == 0:
            rules.check_somebody_stays(ctx.state, action.validator)
        else:
            rules.check_stake(ctx.state, action.validator, remaining_udllm, ctx.params)

    # CHANGE
    validator = collect_matured(ctx, validator)
    if action.amount_udllm:
        validator = _with_leaving(ctx, validator, action.amount_udllm)
    write_validator(ctx.state, validator)

    # EVENT
    ctx.emit(
        "validator_unstaking",
        validator=action.validator,
        amount_udllm=action.amount_udllm,
        stake_udllm=validator.stake_udllm,
    )


def _with_leaving(ctx: ActionContext, validator: ValidatorRecord, amount_udllm: int) -> ValidatorRecord:
    """The validator with an amount on its way out. Raises BadValue where too many are."""
    if len(validator.unbonding) == MAX_UNBONDING:
        raise BadValue(
            f"{MAX_UNBONDING} amounts are on their way back already",
            hint=f"wait until block time {validator.unbonding[0].release_time_ms} ms",
        )
    release_time_ms = ctx.block.time_ms + ctx.params.unbonding_ms
    leaving = StakeUnbonding(amount_udllm, release_time_ms, ctx.block.height)
    return replace(
        validator,
        stake_udllm=validator.stake_udllm - amount_udllm,
        unbonding=(*validator.unbonding, leaving),
    )
