"""The state that a chain starts from."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from dllm_protocol import state_keys
from dllm_protocol.errors import DllmError, UsageRefused
from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.params import Params
from dllm_protocol.pricing import PPM
from dllm_protocol.records import MAX_OFFERS, Account, Chain, Supply
from dllm_protocol.reputation import UNIT
from dllm_protocol.units import MAX_SUPPLY_UDLLM
from full_node.state_machine.accounts.changes import withdraw
from full_node.state_machine.invariants import check_supply
from full_node.state_machine.models.changes import add_model
from full_node.state_machine.models.rules import check_manifest
from full_node.state_machine.state import Overlay

MAX_TOTAL_POWER = (1 << 63) // 8 - 1
"""CometBFT's MaxTotalVotingPower."""


class GenesisRefused(UsageRefused):
    """A genesis that no chain can start from."""

    code = "E_GENESIS"


class _Nothing:
    """The state before genesis."""

    def get(self, key: bytes) -> bytes | None:
        """Nothing is there yet."""
        return None


def genesis_state(genesis: Genesis) -> dict[bytes, bytes]:
    """Every record of the first state.

    Raises:
        GenesisRefused: naming what is wrong.
    """
    check_genesis(genesis)
    state = Overlay(_Nothing())
    supply_udllm = sum(account.balance_udllm for account in genesis.accounts)
    chain = Chain(chain_id_of(genesis), genesis.genesis_time_ms, genesis.address_prefix)
    state.write(state_keys.CHAIN, chain)
    state.write(state_keys.PARAMS, genesis.params)
    state.write(state_keys.SUPPLY, Supply(supply_udllm, 0, 0))
    for account in genesis.accounts:
        state.write(state_keys.account(account.address), Account(account.balance_udllm, 0))
    for model in genesis.models:
        try:
            check_manifest(model.manifest)
            withdraw(state, model.owner, genesis.params.model_bond_udllm)
        except DllmError as error:
            raise GenesisRefused(f"the model {model.manifest.name!r}: {error.message}") from error
        add_model(state, model.owner, model.manifest, genesis.params.model_bond_udllm)
    changes = {key: value for key, value in sorted(state.changes().items()) if value is not None}
    check_supply(changes.items())
    return changes


def check_genesis(genesis: Genesis) -> None:
    """Raises GenesisRefused, naming what is wrong."""
    check_params(genesis.params)
    _ascend("accounts", [account.address for account in genesis.accounts])
    _ascend("models", [model.manifest.name for model in genesis.models])
    keys = [validator.public_key for validator in genesis.validators]
    if len(set(keys)) != len(keys):
        raise GenesisRefused(f"{len(keys)} validators have {len(set(keys))} keys")
    if any(validator.power == 0 for validator in genesis.validators):
        raise GenesisRefused("a validator has power 0, at least 1 is needed")
    power = sum(validator.power for validator in genesis.validators)
    if power > MAX_TOTAL_POWER:
        raise GenesisRefused(f"the validators' power is {power}, at most {MAX_TOTAL_POWER} is allowed")
    supply_udllm = sum(account.balance_udllm for account in genesis.accounts)
    if supply_udllm > MAX_SUPPLY_UDLLM:
        raise GenesisRefused(f"the supply is {supply_udllm} udllm, at most {MAX_SUPPLY_UDLLM} is allowed")


def check_params(params: Params) -> None:
    """Raises GenesisRefused for parameters that the rules cannot work with."""
    for name in (
        "epoch_ms",
        "heartbeat_ms",
        "close_grace_ms",  # without it a session would be closed over whoever has not claimed yet
        "max_offers_per_model",
        "reputation_weight_udllm",
    ):
        if getattr(params, name) == 0:
            raise GenesisRefused(f"{name} is 0, at least 1 is needed")
    if params.community_share_ppm >= PPM:
        raise GenesisRefused(
            f"community_share_ppm is {params.community_share_ppm}, owners need a share below {PPM}"
        )
    if params.max_offers_per_model > MAX_OFFERS:
        raise GenesisRefused(
            f"max_offers_per_model is {params.max_offers_per_model}, at most {MAX_OFFERS} is allowed"
        )
    if params.reputation_decay > UNIT:
        raise GenesisRefused(f"reputation_decay is {params.reputation_decay}, at most {UNIT} is allowed")
    times = (params.unbonding_ms, params.evidence_age_ms, params.trusting_period_ms)
    if not times[0] > times[1] > times[2] > 0:
        raise GenesisRefused(
            f"unbonding, evidence age and trusting period are {times} ms: each must exceed the next"
        )
    _ascend("action weights", [entry.action for entry in params.fees.action_weights])


def _ascend(what: str, values: list[Any]) -> None:
    for first, second in pairwise(values):
        if first >= second:
            raise GenesisRefused(f"{what} ascend and stand once each, yet {first!r} comes before {second!r}")
