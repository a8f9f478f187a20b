"""A devnet's genesis: a test network, quick in everything that people would otherwise wait for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dllm_protocol.bundle import TEST_PREFIX
from dllm_protocol.genesis import GENESIS_VERSION, Genesis, GenesisAccount, GenesisModel, GenesisValidator
from dllm_protocol.model_manifest import Manifest
from dllm_protocol.params import NETWORK_PARAMS
from dllm_protocol.units import UDLLM_PER_DLLM

CHAIN_NAME = "devnet"
WALLET_UDLLM = 10_000 * UDLLM_PER_DLLM
"""What a wallet of whoever runs the devnet starts with."""
FAUCET_UDLLM = 1_000_000 * UDLLM_PER_DLLM
WORKER_UDLLM = 1_000 * UDLLM_PER_DLLM
"""What each worker starts with: its bond, and fees."""
STAKE_UDLLM = 1_000 * UDLLM_PER_DLLM
"""Stake of each validator: all weigh the same."""
VALIDATOR_OWNER_UDLLM = 100 * UDLLM_PER_DLLM
"""What a validator's owner has beside the stake, for fees and for staking more."""

DEVNET_PARAMS = replace(
    NETWORK_PARAMS,
    epoch_ms=2_000,
    heartbeat_ms=5_000,
    close_grace_ms=5_000,
    provider_bond_udllm=10 * UDLLM_PER_DLLM,
    model_bond_udllm=10 * UDLLM_PER_DLLM,
    offer_life_epochs=1_800,
    max_offers_per_model=64,
    min_stake_udllm=10 * UDLLM_PER_DLLM,
)
"""Short epochs and graces, small bonds; times of trust as on any network, so that a devnet may sleep over night."""


@dataclass(frozen=True, slots=True)
class Holders:
    """Addresses (20 bytes) and keys that a devnet's genesis provides for."""

    wallets: Sequence[bytes]
    """Accounts of whoever runs it."""
    workers: Sequence[bytes]
    faucet: bytes
    validators: Sequence[tuple[bytes, bytes]]
    """Consensus public key (32 bytes) and its owner's address."""
    model: Manifest | None = None
    """What the workers serve, registered by the first wallet."""


def make_genesis(holders: Holders, *, seats: int, genesis_time_ms: int, nonce: bytes) -> Genesis:
    """Genesis of a new devnet.

    Args:
        seats: how many validators there can be; the solo engine runs chains with 1.
        nonce: 32 random bytes.
    """
    balances = dict.fromkeys(holders.wallets, WALLET_UDLLM)
    balances |= dict.fromkeys(holders.workers, WORKER_UDLLM)
    balances |= {owner: STAKE_UDLLM + VALIDATOR_OWNER_UDLLM for _, owner in holders.validators}
    balances[holders.faucet] = FAUCET_UDLLM
    return Genesis(
        version=GENESIS_VERSION,
        name=CHAIN_NAME,
        genesis_time_ms=genesis_time_ms,
        address_prefix=TEST_PREFIX,
        params=replace(DEVNET_PARAMS, max_validators=seats),
        accounts=tuple(GenesisAccount(address, amount) for address, amount in sorted(balances.items())),
        models=() if holders.model is None else (GenesisModel(holders.wallets[0], holders.model),),
        validators=tuple(GenesisValidator(key, owner, STAKE_UDLLM) for key, owner in holders.validators),
        nonce=nonce,
    )
