"""What holds at every height: no token appears or vanishes.

genesis + minted − burned = balances + bonds of providers and models + stakes + unbonding + escrow + pools
"""

from __future__ import annotations

from collections.abc import Iterable

from dllm_protocol import state_keys
from dllm_protocol.records import (
    SESSION_CLOSED,
    Account,
    ModelRecord,
    Pool,
    Provider,
    Session,
    Supply,
    ValidatorRecord,
)
from full_node.state_machine.staking.view import tokens_of


class SupplyBroken(RuntimeError):
    """Tokens appeared or vanished: a bug, and no block may be built on it."""


def check_supply(state: Iterable[tuple[bytes, bytes]]) -> None:
    """Add up a whole state. Raises SupplyBroken, naming both sums.

    Args:
        state: every key with its value, in any order.
    """
    supply, held = Supply(0, 0, 0), 0
    for key, value in state:
        if key == state_keys.SUPPLY:
            supply = Supply.decode(value)
        else:
            held += tokens_in(key, value)
    issued = supply.genesis_udllm + supply.minted_udllm - supply.burned_udllm
    if issued != held:
        raise SupplyBroken(f"{issued} udllm were issued, the state holds {held}")


def tokens_in(key: bytes, value: bytes) -> int:
    """Tokens that one record of the state holds, in udllm."""
    if key in (state_keys.COMMUNITY_POOL, state_keys.FEE_POOL):
        return Pool.decode(value).balance_udllm
    kind = key.partition(b"/")[0]
    if kind == b"account":
        return Account.decode(value).balance_udllm
    if kind == b"provider":
        provider = Provider.decode(value)
        return provider.bond_udllm + sum(entry.amount_udllm for entry in provider.unbonding)
    if kind == b"validator":
        return tokens_of(ValidatorRecord.decode(value))
    if kind == b"model":
        return ModelRecord.decode(value).bond_udllm
    if kind == b"session":
        session = Session.decode(value)
        closed = session.status == SESSION_CLOSED
        return 0 if closed else session.deposit_udllm - session.spent_udllm
    return 0
