"""What every transaction must keep to before its actions run, in CheckTx and in a block alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol import refusals, state_keys
from dllm_protocol.actions import CloseSession, GrantChatKey, Transfer
from dllm_protocol.address import address_of
from dllm_protocol.params import least_fee
from dllm_protocol.protobuf import bytes_field, varint_field
from dllm_protocol.transaction import MAX_TRANSACTION_BYTES, Transaction
from full_node.state_machine.admission import Decoder
from full_node.state_machine.waiting import Waiting
from tests.full_node.state_machine.world import (
    FEE_UDLLM,
    FUNDS_UDLLM,
    PARAMS,
    World,
    address,
    refused,
    signer,
)

PAY_BOB = Transfer(address("bob"), 1_000)


@pytest.fixture
def world() -> World:
    return World()


def refused_everywhere(world: World, raw: bytes, refusal: type, *words: object) -> None:
    """CheckTx and a block refuse alike, and the state stays as it is."""
    before = dict(world.reader.values)
    refused(world.app.check_tx(raw), refusal, *words)
    refused(world.block(raw).results[0], refusal, *words)
    assert world.reader.values == before


def test_a_sound_transaction_is_taken_with_its_priority(world: World) -> None:
    transaction = world.sign("alice", PAY_BOB)
    check = world.check(transaction)
    assert (check.code, check.sender, check.sequence) == (0, address("alice"), 0)
    assert check.priority == FEE_UDLLM * 1000 // check.gas_wanted
    assert world.block(transaction).results[0].gas_used == check.gas_wanted


@pytest.mark.parametrize("raw", [b"", b"\x00", b"\xff" * 40, b"\x0a\x05\x08"])
def test_bytes_that_are_no_transaction_are_refused(world: World, raw: bytes) -> None:
    refused_everywhere(world, raw, refusals.MalformedTransaction)


def test_a_field_this_version_does_not_know_is_refused(world: World) -> None:
    raw = world.sign("alice", PAY_BOB).encode() + varint_field(9, 1)
    refused_everywhere(world, raw, refusals.UnknownFieldInTransaction, "no field 9")


def test_an_action_this_version_does_not_know_is_refused(world: World) -> None:
    known = world.sign("alice", PAY_BOB)
    body = known.body.encode() + bytes_field(9, bytes_field(99, b"x"))
    raw = bytes_field(1, body) + bytes_field(2, known.signature)
    refused_everywhere(world, raw, refusals.UnknownFieldInTransaction, "alternative 99")


def test_a_transaction_of_another_version_is_refused(world: World) -> None:
    body = world.sign("alice", PAY_BOB).body.encode()
    for version in (b"", varint_field(1, 2)):
        raw = bytes_field(1, version + body[2:]) + bytes_field(2, bytes(64))
        refused_everywhere(world, raw, refusals.MalformedTransaction, "version")


def test_a_transaction_above_the_size_limit_is_refused(world: World) -> None:
    raw = bytes(MAX_TRANSACTION_BYTES + 1)
    refused_everywhere(world, raw, refusals.TooLarge, MAX_TRANSACTION_BYTES, len(raw))


def test_a_transaction_for_another_chain_is_refused(world: World) -> None:
    raw = world.sign("alice", PAY_BOB, chain_id="other-00000000").encode()
    refused_everywhere(world, raw, refusals.WrongChain, "other-00000000", world.chain_id)


def test_a_key_that_is_not_the_accounts_is_refused(world: World) -> None:
    raw = world.sign("alice", PAY_BOB, key="mallory").encode()
    refused_everywhere(world, raw, refusals.ChatKeyNotAllowed, signer("mallory").public_key, "none")


def test_a_signature_that_does_not_fit_is_refused(world: World) -> None:
    sound = world.sign("alice", PAY_BOB)
    forged = replace(sound, body=replace(sound.body, actions=(Transfer(address("bob"), 999),)))
    refused_everywhere(world, forged.encode(), refusals.BadSignature, signer("alice").public_key)


def test_an_expired_transaction_is_refused(world: World) -> None:
    for _ in range(3):
        world.block()
    raw = world.sign("alice", PAY_BOB, timeout_height=3).encode()
    refused_everywhere(world, raw, refusals.Expired, 3, 4)


def test_a_transaction_stands_at_its_timeout_height(world: World) -> None:
    assert world.block(world.sign("alice", PAY_BOB, timeout_height=1)).results[0].code == 0


def test_a_used_sequence_is_refused(world: World) -> None:
    world.do("alice", PAY_BOB)
    raw = world.sign("alice", PAY_BOB, sequence=0).encode()
    refused_everywhere(world, raw, refusals.WrongSequence, 0, 1)


def test_a_sequence_that_comes_too_early_has_a_code_of_its_own(world: World) -> None:
    raw = world.sign("alice", PAY_BOB, sequence=2).encode()
    refused_everywhere(world, raw, refusals.SequenceGap, 2, 0)
    check = world.app.check_tx(raw)
    assert (check.sender, check.sequence) == (address("alice"), 2)


def test_a_gap_is_refused_only_with_a_sound_signature(world: World) -> None:
    sound = world.sign("alice", PAY_BOB, sequence=2)
    refused(world.check(replace(sound, signature=bytes(64))), refusals.BadSignature)


def test_a_fee_one_below_the_least_is_refused_naming_both(world: World) -> None:
    sound = world.sign("alice", PAY_BOB, fee_udllm=100)
    least = least_fee(PARAMS.fees, sound, len(sound.encode()), lambda _: 0)
    below = world.sign("alice", PAY_BOB, fee_udllm=least - 1)
    assert len(below.encode()) == len(sound.encode())
    refused_everywhere(world, below.encode(), refusals.FeeTooLow, least, least - 1)
    world.block(world.sign("alice", PAY_BOB, fee_udllm=least))
    assert world.balance("alice") == FUNDS_UDLLM - 1_000 - least


def test_a_fee_above_the_balance_is_refused(world: World) -> None:
    raw = world.sign("nobody", PAY_BOB).encode()
    refused_everywhere(world, raw, refusals.InsufficientFunds, 0, FEE_UDLLM)


def test_check_judges_a_transaction_after_those_that_wait(world: World) -> None:
    rest = FUNDS_UDLLM - 2 * FEE_UDLLM
    assert world.check(world.sign("alice", Transfer(address("bob"), rest))).code == 0
    second = world.sign("alice", Transfer(address("bob"), 1), sequence=1)
    refused(world.check(second), refusals.InsufficientFunds, 0, 1)


def test_check_refuses_what_its_actions_would_fail_at(world: World) -> None:
    refused(world.check(world.sign("alice", CloseSession(bytes(32), None, (), ()))), refusals.UnknownSession)
    assert world.check(world.sign("alice", PAY_BOB)).code == 0


def test_whoever_asked_about_a_transaction_before_is_not_in_its_way(world: World) -> None:
    first, second = (world.sign("alice", PAY_BOB, sequence=sequence) for sequence in (0, 1))
    asked = [world.check(one) for one in (first, second)]
    assert [world.check(one) for one in (first, second)] == asked
    assert [one.code for one in asked] == [0, 0]
    world.block(first)
    refused(world.check(first), refusals.WrongSequence)
    assert world.check(second) == asked[1]


def test_what_other_accounts_wait_with_or_were_asked_about_does_not_count(world: World) -> None:
    """One place on one offer: whoever only asks about a session does not take it from those who come."""
    world.provide("carol", capacity_sessions=1)
    asked = world.sign("alice", world.opening("session a", deposit_udllm=1))
    assert world.check(asked).code == 0
    honest = world.sign("bob", world.opening("session b", deposit_udllm=1))
    assert world.check(honest).code == 0
    # But an account's own transactions count for it: it cannot have the place twice.
    twice = world.sign(
        "bob", world.opening("session c", deposit_udllm=1), sequence=world.account("bob").sequence + 1
    )
    refused(world.check(twice), refusals.NoRoute)
    assert world.block(honest).results[0].code == 0
    refused(world.check(asked), refusals.NoRoute)


def test_what_is_only_asked_about_leaves_no_trace(world: World) -> None:
    first, other = (world.sign("alice", Transfer(address("bob"), amount)).encode() for amount in (1, 2))
    second = world.sign("alice", PAY_BOB, sequence=1).encode()
    assert world.app.check_tx(first, keep=False).code == 0
    refused(world.app.check_tx(second), refusals.SequenceGap)
    assert world.app.check_tx(other).code == 0
    assert world.app.check_tx(second, keep=False).code == 0
    assert world.app.check_tx(second).code == 0
    assert world.app.check_tx(other, keep=False).code == 0, "it waits, and is still good"


def test_what_is_kept_between_blocks_is_bounded(world: World) -> None:
    waiting = Waiting(world.overlay(), changes_max=10)
    kept = 0
    for number in range(100):
        trial = waiting.trial(b"%020d" % number)
        trial.put(b"key", b"v" * 97)
        kept += waiting.keep(b"%020d" % number, trial)
    assert kept == 10
    assert waiting.state_of(b"%020d" % 3).get(b"key") == b"v" * 97
    assert waiting.state_of(b"%020d" % 50) is waiting.newest
    assert waiting.newest.get(b"key") is None


def test_what_is_kept_as_bytes_between_blocks_is_bounded_too(world: World) -> None:
    waiting = Waiting(world.overlay(), bytes_max=1_000)
    kept = 0
    for number in range(100):
        trial = waiting.trial(b"%020d" % number)
        trial.put(b"route", b"v" * 300)
        trial.delete(b"gone")
        kept += waiting.keep(b"%020d" % number, trial)
    assert kept == 3


def test_checks_start_anew_after_each_block(world: World) -> None:
    assert world.check(world.sign("alice", PAY_BOB)).code == 0
    refused(world.check(world.sign("alice", PAY_BOB, timeout_height=9)), refusals.WrongSequence)
    world.block()
    assert world.check(world.sign("alice", PAY_BOB)).code == 0


# --- the chat key


@pytest.fixture
def with_chat_key(world: World) -> World:
    world.do("alice", GrantChatKey(signer("chat").public_key, 3 * FEE_UDLLM - 1))
    return world


def test_a_chat_key_moves_no_tokens(with_chat_key: World) -> None:
    raw = with_chat_key.sign("alice", PAY_BOB, key="chat").encode()
    refused_everywhere(with_chat_key, raw, refusals.ChatKeyNotAllowed, "Transfer")


def test_a_chat_key_of_another_account_is_refused(with_chat_key: World) -> None:
    action = CloseSession(bytes(32), None, (), ())
    raw = with_chat_key.sign("bob", action, key="chat").encode()
    refused_everywhere(with_chat_key, raw, refusals.ChatKeyNotAllowed)


def test_fees_count_a_chat_keys_cap_down_until_it_is_used_up(with_chat_key: World) -> None:
    action = CloseSession(bytes(32), None, (), ())
    for _ in range(2):
        refused(with_chat_key.send("alice", action, key="chat"), refusals.UnknownSession)
    raw = with_chat_key.sign("alice", action, key="chat").encode()
    refused_everywhere(with_chat_key, raw, refusals.ChatKeyCapExceeded, FEE_UDLLM - 1, FEE_UDLLM)


def test_a_new_grant_replaces_the_key_and_its_cap(with_chat_key: World) -> None:
    with_chat_key.do("alice", GrantChatKey(signer("chat 2").public_key, FEE_UDLLM))
    action = CloseSession(bytes(32), None, (), ())
    refused(with_chat_key.send("alice", action, key="chat"), refusals.ChatKeyNotAllowed)
    refused(with_chat_key.send("alice", action, key="chat 2"), refusals.UnknownSession)


def test_a_revoked_key_is_refused(with_chat_key: World) -> None:
    with_chat_key.do("alice", GrantChatKey(b"", 0))
    assert with_chat_key.reader.get(state_keys.chat_key(address("alice"))) is None
    action = CloseSession(bytes(32), None, (), ())
    refused(with_chat_key.send("alice", action, key="chat"), refusals.ChatKeyNotAllowed, "none")


# --- what is remembered between check and block


def test_the_decoder_forgets_the_oldest_beyond_its_bounds(world: World) -> None:
    decoder = Decoder(max_remembered=2, max_bytes=10_000)
    raws = [world.sign("alice", PAY_BOB, sequence=number).encode() for number in range(3)]
    first = [decoder.decode(raw) for raw in raws]
    assert decoder.decode(raws[2]) is first[2]
    again = decoder.decode(raws[0])
    assert again == first[0]
    assert again is not first[0]


def test_the_decoder_is_bounded_in_bytes(world: World) -> None:
    raws = [world.sign("alice", PAY_BOB, sequence=number).encode() for number in range(1, 3)]
    decoder = Decoder(max_bytes=len(raws[0]) + 1)
    first = decoder.decode(raws[0])
    decoder.decode(raws[1])
    assert decoder.decode(raws[0]) is not first


def test_a_signature_is_never_remembered_for_other_bytes(world: World) -> None:
    sound = world.sign("alice", PAY_BOB)
    assert world.check(sound).code == 0
    forged = Transaction(sound.body, bytes(64))
    refused(world.app.check_tx(forged.encode()), refusals.BadSignature)
    assert world.app.check_tx(forged.encode()).code == refusals.BadSignature.abci_code


def test_the_account_is_named_by_its_key() -> None:
    assert address("alice") == address_of(signer("alice").public_key)
