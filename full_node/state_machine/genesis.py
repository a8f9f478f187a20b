"""The state that a chain starts from."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from dllm_protocol import state_keys
from dllm_protocol.consensus_params import BLOCK_MAX_BYTES
from dllm_protocol.errors import DllmError, UsageRefused
from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.params import Params, TimesOutOfOrder, check_times
from dllm_protocol.pricing import PPM
from dllm_protocol.records import MAX_OFFERS, Account, AppVersion, Chain, Supply, ValidatorRecord
from dllm_protocol.reputation import UNIT
from dllm_protocol.signing import is_sound_key
from dllm_protocol.staking import UDLLM_PER_POWER
from dllm_protocol.units import MAX_SUPPLY_UDLLM
from full_node.state_machine.accounts.changes import withdraw
from full_node.state_machine.invariants import check_supply
from full_node.state_machine.models.changes import add_model
from full_node.state_machine.models.rules import check_manifest
from full_node.state_machine.staking.changes import write_validator
from full_node.state_machine.staking.seats import assign_seats
from full_node.state_machine.state import Overlay


class GenesisRefused(UsageRefused):
    """A genesis that no chain can start from."""

    code = "E_GENESIS"


class _Nothing:
    """The state before genesis."""

    def get(self, key: bytes) -> bytes | None:
        """Nothing is there yet."""
        return None


def genesis_state(genesis: Genesis, app_version: int = 0) -> dict[bytes, bytes]:
    """Every record of the first state, under the rules of `app_version`.

    Raises:
        GenesisRefused: naming what is wrong.
    """
    check_genesis(genesis)
    state = Overlay(_Nothing())
    supply_udllm = sum(account.balance_udllm for account in genesis.accounts)
    chain = Chain(chain_id_of(genesis), genesis.genesis_time_ms, genesis.address_prefix)
    state.write(state_keys.CHAIN, chain)
    state.write(state_keys.APP_VERSION, AppVersion(app_version))
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
    for validator in genesis.validators:
        try:
            withdraw(state, validator.owner, validator.stake_udllm)
        except DllmError as error:
            raise GenesisRefused(
                f"the stake on the key {validator.public_key.hex()}: {error.message}"
            ) from error
        write_validator(
            state, ValidatorRecord(validator.owner, validator.public_key, validator.stake_udllm, (), 0)
        )
    assign_seats(state, genesis.params)
    changes = {key: value for key, value in sorted(state.changes().items()) if value is not None}
    check_supply(changes.items())
    return changes


def check_genesis(genesis: Genesis) -> None:
    """Raises GenesisRefused, naming what is wrong."""
    check_params(genesis.params)
    _ascend("accounts", [account.address for account in genesis.accounts])
    _ascend("models", [model.manifest.name for model in genesis.models])
    _check_validators(genesis)
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
        "max_validators",
        "slash_double_sign_ppm",  # double signing would cost nothing
    ):
        if getattr(params, name) == 0:
            raise GenesisRefused(f"{name} is 0, at least 1 is needed")
    if params.community_share_ppm >= PPM:
        raise GenesisRefused(
            f"community_share_ppm is {params.community_share_ppm}, owners need a share below {PPM}"
        )
    if params.block_max_bytes and params.block_max_bytes < BLOCK_MAX_BYTES:
        raise GenesisRefused(
            f"block_max_bytes is {params.block_max_bytes}, a full block of ours has up to {BLOCK_MAX_BYTES}"
        )
    if params.max_offers_per_model > MAX_OFFERS:
        raise GenesisRefused(
            f"max_offers_per_model is {params.max_offers_per_model}, at most {MAX_OFFERS} is allowed"
        )
    if params.reputation_decay > UNIT:
        raise GenesisRefused(f"reputation_decay is {params.reputation_decay}, at most {UNIT} is allowed")
    if params.min_stake_udllm < UDLLM_PER_POWER:
        raise GenesisRefused(
            f"min_stake_udllm is {params.min_stake_udllm}, a validator needs {UDLLM_PER_POWER} for any power"
        )
    try:
        check_times(params)
    except TimesOutOfOrder as error:
        raise GenesisRefused(error.message, hint=error.hint) from error
    _ascend("action weights", [entry.action for entry in params.fees.action_weights])


def _check_validators(genesis: Genesis) -> None:
    keys = [validator.public_key for validator in genesis.validators]
    if len(set(keys)) != len(keys):
        raise GenesisRefused(f"{len(keys)} validators have {len(set(keys))} keys")
    if len(keys) > genesis.params.max_validators:
        raise GenesisRefused(f"{len(keys)} validators stand for {genesis.params.max_validators} seats")
    for validator in genesis.validators:
        if not is_sound_key(validator.public_key):
            raise GenesisRefused(f"the validator key {validator.public_key.hex()} is of low order or no key")
        if validator.stake_udllm < genesis.params.min_stake_udllm:
            raise GenesisRefused(
                f"the stake on the key {validator.public_key.hex()} is {validator.stake_udllm} udllm, "
                f"at least {genesis.params.min_stake_udllm} are needed"
            )


def _ascend(what: str, values: list[Any]) -> None:
    for first, second in pairwise(values):
        if first >= second:
            raise GenesisRefused(f"{what} ascend and stand once each, yet {first!r} comes before {second!r}")
