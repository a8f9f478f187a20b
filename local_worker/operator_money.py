"""What operators need on a network before they serve, and where it is sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dllm_protocol.address import encode_address
from dllm_protocol.bundle import SignedBundle
from dllm_protocol.refusals import InsufficientFunds
from dllm_protocol.units import UDLLM_PER_DLLM, format_dllm
from local_worker.keys import WorkerKeys

FEES_UDLLM = UDLLM_PER_DLLM
"""For an operator's transactions: lasts long."""


@contextmanager
def money_named(
    network: SignedBundle, own: Sequence[WorkerKeys], *, is_owner: bool, registers: bool
) -> Iterator[None]:
    """Want of money says how much is needed, and at which addresses.

    Args:
        is_owner: the operators own their providers, and post the bond.
        registers: the first one may put the model into the registry, which takes a bond too.

    Raises:
        InsufficientFunds: as it came, with that as its hint.
    """
    try:
        yield
    except InsufficientFunds as error:
        raise InsufficientFunds(
            error.message, hint=money_hint(network, own, is_owner=is_owner, registers=registers)
        ) from error


def money_hint(
    network: SignedBundle, own: Sequence[WorkerKeys], *, is_owner: bool, registers: bool = False
) -> str:
    """The commands that give each operator what it needs; see `money_named`."""
    genesis = network.bundle.genesis
    prefix, params = genesis.address_prefix, genesis.params
    bond_udllm = params.provider_bond_udllm if is_owner else 0
    model_udllm = params.model_bond_udllm if registers else 0
    parts = [(bond_udllm, "a bond"), (FEES_UDLLM, "fees"), (model_udllm, "the bond of a new model")]
    why = ", ".join(f"{format_dllm(udllm)} DLLM for {what}" for udllm, what in parts if udllm)
    # Only the first one registers the model.
    needed = [bond_udllm + FEES_UDLLM + (0 if number else model_udllm) for number in range(len(own))]
    commands = [
        f"dllm wallet send {encode_address(prefix, one.operator_address)} {format_dllm(udllm)}"
        for one, udllm in zip(own, needed, strict=True)
    ]
    return "\n".join([f"an operator needs {why}; from a wallet of this network:", *commands])
