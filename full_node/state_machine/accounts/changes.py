"""Every way in which tokens move between accounts and pools."""

from __future__ import annotations

from dataclasses import replace

from dllm_protocol import state_keys
from dllm_protocol.records import Account, ChatKey, Pool
from dllm_protocol.refusals import ChatKeyCapExceeded, InsufficientFunds
from full_node.state_machine.accounts import view
from full_node.state_machine.context import ActionContext
from full_node.state_machine.state import Overlay


def debit(ctx: ActionContext, amount_udllm: int) -> None:
    """Take tokens from the sender; a chat key's cap counts down with it.

    Raises:
        ChatKeyCapExceeded: the chat key may not spend that much any more.
        InsufficientFunds: the balance does not cover it.
    """
    if ctx.by_chat_key:
        spend_cap(ctx.state, ctx.sender, amount_udllm)
    withdraw(ctx.state, ctx.sender, amount_udllm)


def withdraw(state: Overlay, address: bytes, amount_udllm: int) -> None:
    """Take tokens from an account. Raises InsufficientFunds."""
    held = view.account(state, address)
    check_funds(held.balance_udllm, amount_udllm)
    remaining = Account(held.balance_udllm - amount_udllm, held.sequence)
    state.write(state_keys.account(address), remaining)


def check_funds(have_udllm: int, need_udllm: int) -> None:
    """Raises InsufficientFunds, naming both."""
    if have_udllm < need_udllm:
        raise InsufficientFunds(
            f"the account has {have_udllm} udllm, {need_udllm} are needed",
            hint="add funds or ask for less",
        )


def credit(state: Overlay, address: bytes, amount_udllm: int) -> None:
    """Give tokens to an account, which comes into being if it is new."""
    if amount_udllm == 0:
        return
    held = view.account(state, address)
    state.write(state_keys.account(address), Account(held.balance_udllm + amount_udllm, held.sequence))


def pay_into(state: Overlay, pool: bytes, amount_udllm: int) -> None:
    """Give tokens to a pool (see `view.pool_balance`)."""
    if amount_udllm:
        state.write(pool, Pool(view.pool_balance(state, pool) + amount_udllm))


def burn(state: Overlay, amount_udllm: int) -> None:
    """Note tokens that were taken from their holder and given to nobody."""
    supply = view.supply(state)
    state.write(state_keys.SUPPLY, replace(supply, burned_udllm=supply.burned_udllm + amount_udllm))


def spend_cap(state: Overlay, address: bytes, amount_udllm: int) -> None:
    """Count an account's chat key down. Raises ChatKeyCapExceeded."""
    granted = view.chat_key(state, address)
    remaining_udllm = granted.remaining_udllm if granted else 0
    if granted is None or remaining_udllm < amount_udllm:
        raise ChatKeyCapExceeded(
            f"the chat key may still spend {remaining_udllm} udllm, {amount_udllm} are needed",
            hint="unlock the wallet and grant the chat key a new cap",
        )
    left = ChatKey(granted.public_key, remaining_udllm - amount_udllm)
    state.write(state_keys.chat_key(address), left)


def pay_fee(state: Overlay, address: bytes, fee_udllm: int, *, by_chat_key: bool) -> None:
    """Take a transaction's fee to the fee pool and use its sequence up.

    Raises:
        ChatKeyCapExceeded, InsufficientFunds: before anything changed.
    """
    held = view.account(state, address)
    check_funds(held.balance_udllm, fee_udllm)
    if by_chat_key:
        spend_cap(state, address, fee_udllm)
    state.write(state_keys.account(address), Account(held.balance_udllm - fee_udllm, held.sequence + 1))
    pay_into(state, state_keys.FEE_POOL, fee_udllm)
