"""What a chain starts from, and what it cannot start from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dllm_protocol import state_keys
from dllm_protocol.consensus_params import BLOCK_MAX_BYTES
from dllm_protocol.genesis import Genesis, GenesisAccount, GenesisModel, GenesisValidator, chain_id_of
from dllm_protocol.params import NETWORK_PARAMS, ActionWeight, Params
from dllm_protocol.records import (
    Account,
    Chain,
    ModelRecord,
    ModelSet,
    SeatedValidator,
    SeatedValidators,
    Supply,
    ValidatorRecord,
)
from full_node.state_machine.genesis import GenesisRefused, genesis_state
from full_node.state_machine.invariants import SupplyBroken, check_supply, tokens_in
from tests.full_node.state_machine.world import (
    FUNDS_UDLLM,
    GENESIS_TIME_MS,
    MODEL,
    PARAMS,
    PEOPLE,
    STAKE_UDLLM,
    World,
    address,
    make_genesis,
    make_manifest,
    signer,
)


def test_the_first_state_holds_chain_parameters_supply_accounts_and_models() -> None:
    genesis = make_genesis()
    state = genesis_state(genesis)
    assert Chain.decode(state[state_keys.CHAIN]) == Chain(chain_id_of(genesis), GENESIS_TIME_MS, "local")
    assert Params.decode(state[state_keys.PARAMS]) == PARAMS
    assert Supply.decode(state[state_keys.SUPPLY]) == Supply(len(PEOPLE) * FUNDS_UDLLM + STAKE_UDLLM, 0, 0)
    assert Account.decode(state[state_keys.account(address("alice"))]) == Account(FUNDS_UDLLM, 0)
    assert ModelSet.decode(state[state_keys.MODELS]).names == (MODEL,)
    assert ModelRecord.decode(state[state_keys.model(MODEL)]).owner == address("erin")
    assert list(state) == sorted(state)


def test_a_genesis_models_bond_comes_from_its_owner() -> None:
    state = genesis_state(make_genesis())
    bonded = Account.decode(state[state_keys.account(address("erin"))])
    assert bonded.balance_udllm == FUNDS_UDLLM - PARAMS.model_bond_udllm


def test_a_genesis_validators_stake_comes_from_its_owner_and_gives_it_a_seat() -> None:
    state = genesis_state(make_genesis())
    assert state_keys.account(address("staker")) not in state
    key = signer("validator").public_key
    validator = ValidatorRecord.decode(state[state_keys.validator(address("validator"))])
    assert validator == ValidatorRecord(address("staker"), key, STAKE_UDLLM, (), 0)
    seats = SeatedValidators.decode(state[state_keys.VALIDATORS])
    assert seats.entries == (SeatedValidator(key, STAKE_UDLLM // 1_000_000),)


def test_the_networks_own_parameters_make_a_chain() -> None:
    assert state_keys.PARAMS in genesis_state(make_genesis(NETWORK_PARAMS))


def test_a_chain_from_before_blocks_had_a_size_of_their_own_begins_as_it_was() -> None:
    old = _with_params(block_max_bytes=0)
    assert Genesis.decode(old.encode()) == old
    assert Params.decode(genesis_state(old)[state_keys.PARAMS]) == old.params


def test_an_account_that_starts_empty_leaves_no_record() -> None:
    genesis = make_genesis()
    empty = GenesisAccount(b"\x00" * 20, 0)
    state = genesis_state(replace(genesis, accounts=(empty, *genesis.accounts)))
    assert state_keys.account(empty.address) not in state


def _with_params(**changes: Any) -> Genesis:
    return make_genesis(replace(PARAMS, **changes))


def _changed(**changes: Any) -> Genesis:
    return replace(make_genesis(), **changes)


def _validated(key: bytes, stake_udllm: int, owner: bytes = address("staker")) -> Genesis:
    return _changed(validators=(GenesisValidator(key, owner, stake_udllm),))


_GENESIS = make_genesis()
_KEY = signer("validator").public_key
_WEIGHTS = replace(PARAMS.fees, action_weights=(ActionWeight(2, 1, 0), ActionWeight(1, 1, 0)))
BROKEN = {
    "blocks": (
        _with_params(block_max_bytes=BLOCK_MAX_BYTES - 1),
        f"a full block of ours has up to {BLOCK_MAX_BYTES}",
    ),
    "epoch": (_with_params(epoch_ms=0), "epoch_ms is 0"),
    "heartbeat": (_with_params(heartbeat_ms=0), "heartbeat_ms is 0"),
    "grace": (_with_params(close_grace_ms=0), "close_grace_ms is 0"),
    "weight": (_with_params(reputation_weight_udllm=0), "reputation_weight_udllm is 0"),
    "offers": (_with_params(max_offers_per_model=0), "max_offers_per_model is 0"),
    "share": (_with_params(community_share_ppm=1_000_000), "1000000"),
    "times": (_with_params(evidence_age_ms=PARAMS.unbonding_ms), "must exceed the next"),
    "trust": (_with_params(trusting_period_ms=0), "must exceed the next"),
    "trust as old as evidence": (
        _with_params(trusting_period_ms=PARAMS.evidence_age_ms),
        "must exceed the next",
    ),
    "heartbeat after trust": (
        _with_params(heartbeat_ms=PARAMS.trusting_period_ms),
        "must exceed the next",
    ),
    "fees": (_with_params(fees=_WEIGHTS), "action weights ascend"),
    "account order": (_changed(accounts=tuple(reversed(_GENESIS.accounts))), "accounts ascend"),
    "account twice": (_changed(accounts=_GENESIS.accounts[:1] * 2), "accounts ascend"),
    "model twice": (_changed(models=_GENESIS.models * 2), "models ascend"),
    "model owner": (_changed(models=(GenesisModel(b"p" * 20, make_manifest()),)), "the account has 0"),
    "manifest": (
        _changed(models=(GenesisModel(address("erin"), replace(make_manifest(), layers=0)),)),
        "0 layers",
    ),
    "validator twice": (_changed(validators=_GENESIS.validators * 2), "2 validators have 1 keys"),
    "stake": (_validated(_KEY, STAKE_UDLLM - 1), f"is {STAKE_UDLLM - 1} udllm"),
    "stake of nothing": (_validated(_KEY, STAKE_UDLLM, owner=b"p" * 20), "the account has 0"),
    "validator key": (_validated(bytes(32), STAKE_UDLLM), "low order"),
    "seats": (_with_params(max_validators=0), "max_validators is 0"),
    "too few seats": (
        replace(
            _with_params(max_validators=1),
            validators=tuple(
                GenesisValidator(signer(name).public_key, address(name), STAKE_UDLLM)
                for name in ("alice", "bob")
            ),
        ),
        "2 validators stand for 1 seats",
    ),
    "stake without power": (_with_params(min_stake_udllm=999_999), "for any power"),
    "double signing for free": (_with_params(slash_double_sign_ppm=0), "slash_double_sign_ppm is 0"),
    "supply": (
        _changed(accounts=tuple(GenesisAccount(bytes([n]) * 20, (1 << 60) - 1) for n in (1, 2))),
        "supply is",
    ),
}


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_a_genesis_that_makes_no_sense_is_refused(case: str) -> None:
    genesis, words = BROKEN[case]
    with pytest.raises(GenesisRefused, match=words):
        genesis_state(genesis)


def test_tokens_from_nowhere_are_noticed() -> None:
    world = World()
    world.reader.values[state_keys.account(b"m" * 20)] = Account(1, 0).encode()
    with pytest.raises(SupplyBroken, match="the state holds"):
        check_supply(world.reader.values.items())


def test_records_without_tokens_count_nothing() -> None:
    world = World()
    assert tokens_in(state_keys.PARAMS, world.reader.values[state_keys.PARAMS]) == 0
