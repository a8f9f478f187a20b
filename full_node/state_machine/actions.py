"""Which handler answers which action, and how a transaction's actions run: all of them or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dllm_protocol import actions
from dllm_protocol.encoding import Record
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.refusals import BadValue
from full_node.state_machine.accounts.handlers import grant_chat_key, transfer
from full_node.state_machine.context import ActionContext
from full_node.state_machine.holders.handlers import set_holding, withdraw_holding
from full_node.state_machine.models.handlers import register_model
from full_node.state_machine.providers.handlers import (
    bond_provider,
    heartbeat,
    register_provider,
    unbond_provider,
    update_provider,
)
from full_node.state_machine.providers.offer_handlers import set_offer, withdraw_offer
from full_node.state_machine.providers.slash_handlers import report_contradiction
from full_node.state_machine.sessions.close_handler import close_session
from full_node.state_machine.sessions.handlers import claim_voucher, open_session, top_up_session
from full_node.state_machine.staking.stake_handler import stake
from full_node.state_machine.staking.unstake_handler import unstake

HANDLERS: dict[type[Record], Callable[[ActionContext, Any], None]] = {
    actions.Transfer: transfer,
    actions.GrantChatKey: grant_chat_key,
    actions.RegisterModel: register_model,
    actions.RegisterProvider: register_provider,
    actions.UpdateProvider: update_provider,
    actions.BondProvider: bond_provider,
    actions.UnbondProvider: unbond_provider,
    actions.SetOffer: set_offer,
    actions.WithdrawOffer: withdraw_offer,
    actions.Heartbeat: heartbeat,
    actions.ReportContradiction: report_contradiction,
    actions.SetHolding: set_holding,
    actions.WithdrawHolding: withdraw_holding,
    actions.OpenSession: open_session,
    actions.TopUpSession: top_up_session,
    actions.ClaimVoucher: claim_voucher,
    actions.CloseSession: close_session,
    actions.Stake: stake,
    actions.Unstake: unstake,
}


def run_actions(ctx: ActionContext, asked: tuple[Record, ...]) -> None:
    """Run a transaction's actions in order on the context's state.

    Raises:
        TransactionRefused: of the first action that the chain will not take; the context's state is then void.
    """
    for position, action in enumerate(asked):
        try:
            HANDLERS[type(action)](ctx, action)
        except MalformedBytes as error:
            # A record would leave the bounds that its format sets, such as the longest list.
            raise BadValue(f"action {position}, {type(action).__name__}: {error.message}") from error
