"""Composing a chain's beginning from what an operator says: who validates, who owns what."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dllm_protocol.address import address_of, decode_address
from dllm_protocol.errors import UsageRefused
from dllm_protocol.genesis import GENESIS_VERSION, Genesis, GenesisAccount, GenesisValidator
from dllm_protocol.params import NETWORK_PARAMS
from dllm_protocol.units import parse_dllm

KEY_BYTES = 32
_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Founding:
    """What a new chain is made from.

    Attributes:
        name: first part of the chain id.
        prefix: bech32 prefix of its addresses.
        validators: the first set.
        accounts: (address, udllm) that exist from the start, beside the validators' stakes.
        seats: most validators that the chain has at once; 1 on a chain for the solo engine.
    """

    name: str
    prefix: str
    validators: Sequence[GenesisValidator]
    accounts: Sequence[tuple[bytes, int]]
    seats: int


def found_chain(founding: Founding) -> Genesis:
    """A genesis of this moment; stakes come on top of what accounts are given."""
    balances: dict[bytes, int] = {}
    stakes = [(one.owner, one.stake_udllm) for one in founding.validators]
    for address, amount_udllm in (*stakes, *founding.accounts):
        balances[address] = balances.get(address, 0) + amount_udllm
    return Genesis(
        version=GENESIS_VERSION,
        name=founding.name,
        genesis_time_ms=time.time_ns() // _NS_PER_MS,
        address_prefix=founding.prefix,
        params=replace(NETWORK_PARAMS, max_validators=founding.seats),
        accounts=tuple(GenesisAccount(address, amount) for address, amount in sorted(balances.items())),
        models=(),
        validators=tuple(founding.validators),
        nonce=secrets.token_bytes(32),
    )


def own_validator(public_key: bytes, owner: str, prefix: str) -> GenesisValidator:
    """This node's key with the least stake, its owner's or the key's own account's."""
    staker = decode_address(owner, prefix) if owner else address_of(public_key)
    return GenesisValidator(public_key, staker, NETWORK_PARAMS.min_stake_udllm)


def parse_validator(text: str, prefix: str) -> GenesisValidator:
    """Reads KEY:OWNER:STAKE: public key in hex, owner's address, stake in DLLM. Raises UsageRefused."""
    key, _, rest = text.partition(":")
    owner, found, stake = rest.partition(":")
    try:
        public_key = bytes.fromhex(key)
    except ValueError:
        public_key = b""
    if not found or len(public_key) != KEY_BYTES:
        raise UsageRefused(
            f"--validator is KEY:OWNER:STAKE, got {text!r}",
            hint="KEY as `dllm-node key` prints it, the owner's address, the stake in DLLM",
        )
    return GenesisValidator(public_key, decode_address(owner, prefix), parse_dllm(stake))


def parse_account(text: str, prefix: str) -> tuple[bytes, int]:
    """Reads ADDRESS=DLLM; returns address and udllm. Raises UsageRefused."""
    address, found, amount = text.partition("=")
    if not found:
        raise UsageRefused(f"--account is ADDRESS=DLLM, got {text!r}")
    return decode_address(address, prefix), parse_dllm(amount)
