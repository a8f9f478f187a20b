"""Staking on a consensus key."""

from __future__ import annotations

from dataclasses import replace

from dllm_protocol.actions import Stake
from dllm_protocol.address import address_of
from dllm_protocol.records import ValidatorRecord
from dllm_protocol.refusals import BadValue
from full_node.state_machine.accounts.changes import debit
from full_node.state_machine.context import ActionContext
from full_node.state_machine.staking import rules, view
from full_node.state_machine.staking.changes import collect_matured, write_validator


def stake(ctx: ActionContext, action: Stake) -> None:
    """Lock the sender's tokens behind a consensus key; with enough of them it takes a seat."""
    address = address_of(action.public_key)

    # CHECK
    if action.amount_udllm == 0:
        raise BadValue("staking 0 udllm changes nothing")
    validator = view.find_validator(ctx.state, address)
    if validator is None:
        rules.check_newcomer(action, ctx.sender, ctx.block.chain_id, ctx.params)
        validator = ValidatorRecord(ctx.sender, action.public_key, 0, (), 0)
    rules.check_owner(validator, ctx.sender)
    rules.check_not_jailed(validator)
    stake_udllm = validator.stake_udllm + action.amount_udllm
    rules.check_stake(ctx.state, address, stake_udllm, ctx.params)

    # CHARGE
    validator = collect_matured(ctx, validator)
    debit(ctx, action.amount_udllm)

    # CHANGE
    write_validator(ctx.state, replace(validator, stake_udllm=stake_udllm))

    # EVENT
    ctx.emit("validator_staked", validator=address, owner=ctx.sender, stake_udllm=stake_udllm)
