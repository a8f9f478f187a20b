"""The embedded chain's beginning: random, local, generous, and worth nothing."""

from __future__ import annotations

from collections.abc import Sequence

from dllm_protocol.address import address_of
from dllm_protocol.bundle import LOCAL_PREFIX
from dllm_protocol.consensus_params import BLOCK_MAX_BYTES
from dllm_protocol.genesis import GENESIS_VERSION, Genesis, GenesisAccount, GenesisValidator
from dllm_protocol.params import DEFAULT_FEES, Params
from dllm_protocol.units import UDLLM_PER_DLLM

_DAY_MS = 24 * 3600 * 1000
CHAIN_NAME = "local"
PLAY_MONEY_UDLLM = 1_000 * UDLLM_PER_DLLM
"""What the person's play wallet starts with."""
WORKER_MONEY_UDLLM = 100 * UDLLM_PER_DLLM
"""What each worker starts with: its bond, a model's bond, and fees."""

LOCAL_PARAMS = Params(
    epoch_ms=1_000,
    heartbeat_ms=3_000,
    community_share_ppm=100_000,
    close_grace_ms=3_000,
    unbonding_ms=21 * _DAY_MS,
    evidence_age_ms=18 * _DAY_MS,
    trusting_period_ms=14 * _DAY_MS,
    provider_bond_udllm=10 * UDLLM_PER_DLLM,
    model_bond_udllm=10 * UDLLM_PER_DLLM,
    slash_contradiction_ppm=500_000,
    offer_life_epochs=3_600,
    max_offers_per_model=64,
    reputation_decay=65_535,
    reputation_weight_udllm=1_000,
    reputation_rater_cap=20,
    reputation_penalty_ppm=1_000_000,
    fees=DEFAULT_FEES,
    min_stake_udllm=10 * UDLLM_PER_DLLM,
    max_validators=1,
    slash_double_sign_ppm=50_000,
    block_max_bytes=BLOCK_MAX_BYTES,
    stage_penalty_ppm=50_000,
)
"""Short epochs and graces: nobody should have to wait for play money."""


def make_genesis(
    *, wallet: bytes, workers: Sequence[bytes], validator: bytes, genesis_time_ms: int, nonce: bytes
) -> Genesis:
    """Genesis of a new embedded chain.

    Args:
        wallet: address of the play wallet.
        workers: addresses of the workers' owners.
        validator: the node's consensus public key; the account of that very key owns its stake, and nothing else.
        nonce: 32 random bytes.
    """
    owner = address_of(validator)
    balances = {wallet: PLAY_MONEY_UDLLM} | dict.fromkeys(workers, WORKER_MONEY_UDLLM)
    balances[owner] = LOCAL_PARAMS.min_stake_udllm
    return Genesis(
        version=GENESIS_VERSION,
        name=CHAIN_NAME,
        genesis_time_ms=genesis_time_ms,
        address_prefix=LOCAL_PREFIX,
        params=LOCAL_PARAMS,
        accounts=tuple(GenesisAccount(address, amount) for address, amount in sorted(balances.items())),
        models=(),
        validators=(GenesisValidator(validator, owner, LOCAL_PARAMS.min_stake_udllm),),
        nonce=nonce,
    )
