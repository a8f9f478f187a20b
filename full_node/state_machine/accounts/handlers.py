"""Actions on accounts."""

from __future__ import annotations

from dllm_protocol import state_keys
from dllm_protocol.actions import GrantChatKey, Transfer
from dllm_protocol.address import address_of
from dllm_protocol.records import ChatKey
from dllm_protocol.refusals import BadValue
from full_node.state_machine.accounts.changes import credit, debit
from full_node.state_machine.context import ActionContext


def transfer(ctx: ActionContext, action: Transfer) -> None:
    """Move tokens to another account."""
    # CHECK
    if action.amount_udllm == 0:
        raise BadValue("a transfer of 0 udllm moves nothing")

    # CHARGE
    debit(ctx, action.amount_udllm)

    # CHANGE
    credit(ctx.state, action.recipient, action.amount_udllm)

    # EVENT
    ctx.emit("transfer", sender=ctx.sender, recipient=action.recipient, amount_udllm=action.amount_udllm)


def grant_chat_key(ctx: ActionContext, action: GrantChatKey) -> None:
    """Replace the account's chat key, or revoke it."""
    # CHECK
    if action.public_key and address_of(action.public_key) == ctx.sender:
        raise BadValue(f"the chat key {action.public_key.hex()} is the account's own key")
    if not action.public_key and action.cap_udllm:
        raise BadValue(f"a revocation grants nothing, yet the cap is {action.cap_udllm} udllm")

    # CHANGE
    if action.public_key:
        granted = ChatKey(action.public_key, action.cap_udllm)
        ctx.state.write(state_keys.chat_key(ctx.sender), granted)
    else:
        ctx.state.delete(state_keys.chat_key(ctx.sender))

    # EVENT
    ctx.emit("chat_key", account=ctx.sender, public_key=action.public_key, cap_udllm=action.cap_udllm)
