"""Reading accounts and pools."""

from __future__ import annotations

from dllm_protocol import state_keys
from dllm_protocol.records import Account, ChatKey, Pool, Supply
from full_node.state_machine.state import StateReader, read

NEW_ACCOUNT = Account(0, 0)


def account(state: StateReader, address: bytes) -> Account:
    """The account at an address; one that never was is empty."""
    return read(state, state_keys.account(address), Account) or NEW_ACCOUNT


def chat_key(state: StateReader, address: bytes) -> ChatKey | None:
    """The chat key that an account granted, if any."""
    return read(state, state_keys.chat_key(address), ChatKey)


def pool_balance(state: StateReader, pool: bytes) -> int:
    """What a pool holds, in udllm.

    Args:
        pool: `state_keys.COMMUNITY_POOL` or `state_keys.FEE_POOL`.
    """
    held = read(state, pool, Pool)
    return held.balance_udllm if held else 0


def supply(state: StateReader) -> Supply:
    """How many tokens there are, and where they came from."""
    return read(state, state_keys.SUPPLY, Supply) or Supply(0, 0, 0)
