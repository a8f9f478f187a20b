"""Everything that a transaction can ask for: one frozen record each, numbered once and for all [format]."""

from __future__ import annotations

from dllm_protocol.actions.accounts import GrantChatKey, Transfer
from dllm_protocol.actions.holders import SetHolding, WithdrawHolding
from dllm_protocol.actions.models import RegisterModel
from dllm_protocol.actions.providers import (
    BondProvider,
    Heartbeat,
    RegisterProvider,
    ReportContradiction,
    SetOffer,
    UnbondProvider,
    UpdateProvider,
    WithdrawOffer,
)
from dllm_protocol.actions.sessions import ClaimVoucher, CloseSession, OpenSession, Rating, TopUpSession
from dllm_protocol.actions.validators import Stake, Unstake
from dllm_protocol.encoding import OneOf, Record

ACTION_NUMBERS: dict[int, type[Record]] = {
    1: Transfer,
    2: GrantChatKey,
    10: RegisterModel,
    20: RegisterProvider,
    21: UpdateProvider,
    22: BondProvider,
    23: UnbondProvider,
    24: SetOffer,
    25: WithdrawOffer,
    26: Heartbeat,
    27: ReportContradiction,
    28: SetHolding,
    29: WithdrawHolding,
    30: OpenSession,
    31: TopUpSession,
    32: ClaimVoucher,
    33: CloseSession,
    40: Stake,
    41: Unstake,
}
"""Number on the wire → action. Numbers leave room by component and are never reused."""

ACTION = OneOf(ACTION_NUMBERS)

__all__ = [
    "ACTION",
    "ACTION_NUMBERS",
    "BondProvider",
    "ClaimVoucher",
    "CloseSession",
    "GrantChatKey",
    "Heartbeat",
    "OpenSession",
    "Rating",
    "RegisterModel",
    "RegisterProvider",
    "ReportContradiction",
    "SetHolding",
    "SetOffer",
    "Stake",
    "TopUpSession",
    "Transfer",
    "UnbondProvider",
    "Unstake",
    "UpdateProvider",
    "WithdrawHolding",
    "WithdrawOffer",
]
