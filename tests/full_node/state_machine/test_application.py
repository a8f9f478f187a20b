"""The door: what engines rely on."""

from __future__ import annotations

import pytest

from dllm_protocol import actions, refusals, state_keys
from dllm_protocol.actions import (
    BondProvider,
    ClaimVoucher,
    GrantChatKey,
    Heartbeat,
    RegisterModel,
    ReportContradiction,
    SetOffer,
    TopUpSession,
    Transfer,
    UnbondProvider,
    UpdateProvider,
    WithdrawOffer,
)
from dllm_protocol.actions.providers import ENDPOINT
from dllm_protocol.assignment import session_id_of
from dllm_protocol.records import MAX_OFFERS, ProviderSet
from dllm_protocol.results import ExecTxResult
from full_node.state_machine.actions import HANDLERS
from full_node.state_machine.application import Application
from full_node.state_machine.context import BlockContext, NoChain
from tests.full_node.state_machine.world import (
    LAYERS,
    MODEL,
    PRICES,
    MemoryReader,
    World,
    address,
    kept,
    make_manifest,
    provider_id,
    refused,
    signer,
)


def test_every_action_has_a_handler() -> None:
    assert set(HANDLERS) == set(actions.ACTION_NUMBERS.values())
    assert ENDPOINT.maximum == 200


def test_every_action_tells_what_it_did() -> None:
    world = World()
    bob = provider_id("bob")
    told = [event.type for event in world.do("alice", GrantChatKey(signer("chat").public_key, 5)).events]
    told += _types(world.do("alice", RegisterModel(make_manifest("another"))))
    told += _types(world.do("bob", world.registration("bob")))
    told += _types(world.do("bob", UpdateProvider(bob, b"", b"", ("ws://b",)), BondProvider(bob, 9)))
    told += _types(world.do("bob", SetOffer(bob, MODEL, 0, LAYERS, PRICES, 4), Heartbeat(bob)))
    told += _types(world.do("alice", world.opening("s")))
    session = session_id_of(address("alice"), signer("s").public_key)
    voucher = world.voucher(session, 1, {bob: kept(10)}, key="s")
    told += _types(world.do("alice", TopUpSession(session, 5), ClaimVoucher(voucher)))
    acks = (world.ack("bob", voucher.voucher), world.ack("bob", voucher.voucher, b"other".ljust(32)))
    told += _types(world.do("alice", world.agreed(session, {bob: kept(10)}, "s")))
    told += _types(world.do("bob", WithdrawOffer(bob, MODEL), UnbondProvider(bob, 9)))
    told += _types(world.do("alice", ReportContradiction(*acks), Transfer(address("bob"), 1)))
    assert [one for one in told if one != "fee"] == [
        "chat_key",
        "model_registered",
        "provider_registered",
        "provider_updated",
        "provider_bonded",
        "offer_set",
        "heartbeat",
        "session_opened",
        "session_topped_up",
        "voucher_claimed",
        "session_closed",
        "offer_withdrawn",
        "provider_unbonding",
        "provider_slashed",
        "transfer",
    ]


def _types(result: ExecTxResult) -> list[str]:
    return [event.type for event in result.events]


def test_a_close_tells_what_was_spent_and_what_came_back() -> None:
    world = World()
    bob = world.provide("bob")
    session = world.open("alice", deposit_udllm=1_000)
    result = world.do("alice", world.agreed(session, {bob: kept(10)}))
    told = {one.key: one.value for one in result.events[-1].attributes}
    assert (told["spent_udllm"], told["refund_udllm"]) == ("112", "888")


def test_an_empty_store_has_no_chain() -> None:
    app = Application(MemoryReader())
    with pytest.raises(NoChain):
        app.check_tx(b"")
    with pytest.raises(NoChain):
        app.note_committed(0, 0)
    with pytest.raises(NoChain):
        app.finalize_block(BlockContext("test-1", 1, 0), [])


def test_finalizing_changes_nothing_until_the_engine_stores_it() -> None:
    world = World()
    raw = world.sign("alice", Transfer(address("bob"), 5)).encode()
    block = BlockContext(world.chain_id, 1, world.time_ms * 1_000_000)
    first = world.app.finalize_block(block, [raw])
    assert world.app.finalize_block(block, [raw]) == first
    assert first.changes


def test_a_node_that_restarted_gives_the_same_outcome_as_one_that_did_not() -> None:
    world = World()
    raws = [world.sign("alice", Transfer(address("bob"), 5), sequence=n).encode() for n in range(3)]
    for raw in raws:
        assert world.app.check_tx(raw).code == 0
    block = BlockContext(world.chain_id, 1, world.time_ms * 1_000_000)
    restarted = Application(world.reader)
    assert restarted.finalize_block(block, raws) == world.app.finalize_block(block, raws)
    restarted.note_committed(0, world.time_ms * 1_000_000)
    assert restarted.check_tx(raws[0]).code == 0


def test_changes_ascend_and_name_only_what_differs() -> None:
    world = World()
    there = world.sign("alice", Transfer(address("bob"), 5))
    back = world.sign("bob", Transfer(address("alice"), 5))
    changes = world.block(there, back).changes
    assert list(changes) == sorted(changes)
    assert set(changes) == {
        state_keys.account(address("alice")),
        state_keys.account(address("bob")),
        state_keys.FEE_POOL,
    }


def test_a_block_of_refused_transactions_changes_nothing() -> None:
    world = World()
    assert world.block(b"junk").changes == {}


def test_a_record_that_would_outgrow_its_format_is_a_refusal() -> None:
    world = World()
    full = ProviderSet(tuple(number.to_bytes(20, "big") for number in range(MAX_OFFERS)))
    world.reader.values[state_keys.providers_of(address("bob"))] = full.encode()
    result = world.send("bob", world.registration("bob"))
    refused(result, refusals.BadValue, "RegisterProvider", "65537 elements")


def test_results_name_their_codespace_only_where_refused() -> None:
    world = World()
    good, bad = world.block(world.sign("alice", Transfer(address("bob"), 5)), b"junk").results
    assert (good.code, good.codespace, good.log) == (0, "", "")
    assert bad.codespace == "dllm"
    assert bad.log
