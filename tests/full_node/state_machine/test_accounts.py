"""Balances, fees, and all-or-nothing."""

from __future__ import annotations

import pytest

from dllm_protocol import refusals, state_keys
from dllm_protocol.actions import GrantChatKey, Transfer
from tests.full_node.state_machine.world import FEE_UDLLM, FUNDS_UDLLM, World, address, refused, signer


@pytest.fixture
def world() -> World:
    return World()


def test_a_transfer_moves_tokens_and_the_fee_goes_to_the_fee_pool(world: World) -> None:
    world.do("alice", Transfer(address("bob"), 1_000))
    assert world.balance("alice") == FUNDS_UDLLM - 1_000 - FEE_UDLLM
    assert world.balance("bob") == FUNDS_UDLLM + 1_000
    assert world.pool(state_keys.FEE_POOL) == FEE_UDLLM
    assert world.pool(state_keys.COMMUNITY_POOL) == 0
    assert world.account("alice").sequence == 1


def test_a_transfer_makes_a_new_account(world: World) -> None:
    world.do("alice", Transfer(address("nobody"), 7))
    assert (world.balance("nobody"), world.account("nobody").sequence) == (7, 0)


def test_a_transfer_to_oneself_costs_the_fee_only(world: World) -> None:
    world.do("alice", Transfer(address("alice"), 1_000))
    assert world.balance("alice") == FUNDS_UDLLM - FEE_UDLLM


def test_a_transfer_of_nothing_is_refused(world: World) -> None:
    refused(world.send("alice", Transfer(address("bob"), 0)), refusals.BadValue)


def test_a_transfer_above_the_balance_keeps_fee_and_sequence_only(world: World) -> None:
    result = world.send("alice", Transfer(address("bob"), FUNDS_UDLLM))
    refused(result, refusals.InsufficientFunds, FUNDS_UDLLM - FEE_UDLLM, FUNDS_UDLLM)
    assert world.balance("alice") == FUNDS_UDLLM - FEE_UDLLM
    assert world.balance("bob") == FUNDS_UDLLM
    assert world.account("alice").sequence == 1
    assert [event.type for event in result.events] == ["fee"]


def test_all_actions_of_a_transaction_succeed_or_none_does(world: World) -> None:
    result = world.send(
        "alice", Transfer(address("bob"), 5), Transfer(address("carol"), 0), Transfer(address("dave"), 5)
    )
    refused(result, refusals.BadValue)
    assert world.balance("bob") == world.balance("dave") == FUNDS_UDLLM


def test_an_account_that_spends_everything_keeps_its_sequence(world: World) -> None:
    world.do("alice", Transfer(address("bob"), FUNDS_UDLLM - FEE_UDLLM))
    assert (world.balance("alice"), world.account("alice").sequence) == (0, 1)


def test_transactions_of_one_block_see_those_before_them(world: World) -> None:
    first = world.sign("alice", Transfer(address("nobody"), 50_000))
    second = world.sign("nobody", Transfer(address("bob"), 1))
    assert [result.code for result in world.block(first, second).results] == [0, 0]


def test_a_chat_key_is_not_the_accounts_own_key(world: World) -> None:
    own = signer("alice").public_key
    refused(world.send("alice", GrantChatKey(own, 5)), refusals.BadValue, own)


def test_a_revocation_grants_no_cap(world: World) -> None:
    refused(world.send("alice", GrantChatKey(b"", 5)), refusals.BadValue, 5)


def test_transfers_are_told_by_address(world: World) -> None:
    result = world.do("alice", Transfer(address("bob"), 9))
    told = {one.key: one.value for one in result.events[1].attributes}
    assert result.events[1].type == "transfer"
    assert told == {
        "sender": address("alice").hex(),
        "recipient": address("bob").hex(),
        "amount_udllm": "9",
    }
