"""What an owner sends so that a worker can serve: its registration with a bond, and money for its operator's fees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dllm_chat.dispatch.purse import WalletPurse
from dllm_protocol.actions import BondProvider, RegisterProvider, Transfer
from dllm_protocol.address import provider_id_of
from dllm_protocol.bundle import NetworkBundle
from dllm_protocol.encoding import Record
from dllm_protocol.errors import WalletLocked
from dllm_protocol.receipt import BADGE_LOCAL
from dllm_protocol.refusals import InsufficientFunds
from dllm_protocol.units import format_dllm

if TYPE_CHECKING:
    from dllm_chat.session.conversation import Chain

OPERATOR_MONEY_UDLLM = 1_000_000
"""What a new worker's operator account is given for its fees."""
UNKNOWN_ENDPOINT = "ws://127.0.0.1:1"
"""Stands in the registration until the worker listens and updates it."""


@dataclass(frozen=True, slots=True)
class Registering:
    """What the chain lacks for a worker."""

    actions: tuple[Record, ...]
    """Empty where it lacks nothing."""
    amount_udllm: int
    """What they take out of the owner's account, beside the fee."""
    is_new: bool
    """Whether a provider is registered."""

    async def check(self, chain: Chain) -> None:
        """Look whether our account can send it, before anybody waits for a model to load.

        Raises:
            WalletLocked: that needs the account's own key.
            InsufficientFunds: that needs more than the account has.
        """
        if not self.actions:
            return
        purse = _signer(chain)
        fee_udllm = await chain.sender.fee_of(purse, self.actions)
        account = await chain.reads.account(purse.account)
        held_udllm = account.balance_udllm if account else 0
        if held_udllm < self.amount_udllm + fee_udllm:
            raise InsufficientFunds(
                f"serving takes {format_dllm(self.amount_udllm + fee_udllm)} DLLM, bond and fees, "
                f"the account has {format_dllm(held_udllm)}",
                hint="have somebody send it some DLLM; the bond comes back with: dllm worker leave",
            )

    async def send(self, chain: Chain) -> None:
        """Send it, and wait for the proof that it was taken.

        Raises:
            WalletLocked, TransactionRefused
        """
        if self.actions:
            await chain.sender.send(_signer(chain), self.actions)


async def missing_on_chain(
    chain: Chain, bundle: NetworkBundle, keys: dict[str, bytes], *, brings_model: bool
) -> Registering:
    """What is to be sent for a worker with these keys: its provider where it is new, its bond, its operator's needs.

    On an embedded network the operator also gets a model's bond when the person brings a file of their own;
    elsewhere putting a model into the registry is a decision of its own.
    """
    params = bundle.genesis.params
    needed_udllm = OPERATOR_MONEY_UDLLM
    if brings_model and bundle.badge == BADGE_LOCAL:
        needed_udllm += params.model_bond_udllm
    operator = await chain.reads.account(keys["operator"])
    missing_udllm = needed_udllm - (operator.balance_udllm if operator else 0)
    actions: list[Record] = []
    amount_udllm = 0
    if missing_udllm > OPERATOR_MONEY_UDLLM // 2:
        actions.append(Transfer(keys["operator"], missing_udllm))
        amount_udllm += missing_udllm
    provider = provider_id_of(chain.purse.account, keys["operator"])
    known = await chain.reads.provider(provider)
    bond_udllm = params.provider_bond_udllm - (known.bond_udllm if known is not None else 0)
    if known is None:
        actions.append(
            RegisterProvider(
                operator=keys["operator"],
                service_key=keys["service_key"],
                sealing_key=keys["sealing_key"],
                endpoints=(UNKNOWN_ENDPOINT,),
                region="",
                bond_udllm=bond_udllm,
            )
        )
    elif bond_udllm > 0:  # it left, or was fined
        actions.append(BondProvider(provider, bond_udllm))
    amount_udllm += max(0, bond_udllm)
    return Registering(tuple(actions), amount_udllm, known is None)


def _signer(chain: Chain) -> WalletPurse:
    purse = chain.purse
    if not isinstance(purse, WalletPurse):
        raise WalletLocked(
            "registering a worker posts a bond: that needs the wallet itself, not its chat key",
            hint="in a terminal: dllm worker on (it asks for the wallet's password)",
        )
    return purse
