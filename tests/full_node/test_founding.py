"""A chain's beginning from an operator's words."""

from __future__ import annotations

import pytest

from dllm_protocol.address import address_of, encode_address
from dllm_protocol.errors import DllmError, UsageRefused
from dllm_protocol.params import NETWORK_PARAMS
from dllm_protocol.signing import SeedSigner
from full_node.founding import Founding, found_chain, own_validator, parse_account, parse_validator
from full_node.state_machine.genesis import check_genesis, genesis_state

KEY = SeedSigner(b"k" * 32).public_key
OWNER = encode_address("local", b"\x07" * 20)


def test_a_validator_is_read_from_its_three_parts() -> None:
    found = parse_validator(f"{KEY.hex()}:{OWNER}:2500", "local")
    assert (found.public_key, found.owner, found.stake_udllm) == (KEY, b"\x07" * 20, 2_500_000_000)
    assert found.power == 2500


@pytest.mark.parametrize("text", ["", KEY.hex(), f"{KEY.hex()}:{OWNER}", f"zz:{OWNER}:1", f"ab:{OWNER}:1"])
def test_what_is_no_validator_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(UsageRefused, match="KEY:OWNER:STAKE"):
        parse_validator(text, "local")


def test_an_account_is_read_and_anything_else_refused() -> None:
    assert parse_account(f"{OWNER}=1.5", "local") == (b"\x07" * 20, 1_500_000)
    for text in (OWNER, f"{OWNER}=x", "=1"):
        with pytest.raises(DllmError):
            parse_account(text, "local")


def test_a_chain_locks_stakes_beside_what_accounts_are_given() -> None:
    validators = [parse_validator(f"{KEY.hex()}:{OWNER}:1000", "local")]
    genesis = found_chain(Founding("name", "local", validators, [(b"\x07" * 20, 5), (b"\x01" * 20, 6)], 4))
    check_genesis(genesis)
    assert [(one.address, one.balance_udllm) for one in genesis.accounts] == [
        (b"\x01" * 20, 6),
        (b"\x07" * 20, 1_000_000_005),
    ]
    assert genesis.params.max_validators == 4
    assert genesis_state(genesis)


def test_a_node_alone_stakes_the_least_on_its_own_key() -> None:
    alone = own_validator(KEY, "", "local")
    assert (alone.owner, alone.stake_udllm) == (address_of(KEY), NETWORK_PARAMS.min_stake_udllm)
    assert own_validator(KEY, OWNER, "local").owner == b"\x07" * 20
