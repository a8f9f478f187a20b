"""What a transaction took is what the account lost; what a stranger writes into a memo runs nowhere."""

import csv
from pathlib import Path

import pytest

from dllm_chat.cli.history import COLUMNS, _harmless, _name, _taken, _text, _write_csv
from dllm_protocol.actions import (
    BondProvider,
    CloseSession,
    GrantChatKey,
    RegisterModel,
    Stake,
    TopUpSession,
    Transfer,
    UnbondProvider,
    Unstake,
)
from dllm_protocol.actions.validators import prove_key
from dllm_protocol.address import address_of
from dllm_protocol.encoding import Record
from dllm_protocol.errors import UsageRefused
from tests.dllm_chat.cli.world_chain import chain_of
from tests.full_node.state_machine.world import (
    FEE_UDLLM,
    STAKE_UDLLM,
    World,
    address,
    make_manifest,
    provider_id,
    signer,
)

ENTRY = {
    "time": "2026-01-01T00:00:00Z",
    "height": 3,
    "direction": "in",
    "kind": "transfer",
    "amount_udllm": 5,
    "fee_udllm": 0,
    "other": "local1x",
    "memo": "=HYPERLINK(1)",
    "ok": True,
    "tx_hash": "AB",
    "proved": True,
}


def test_a_file_for_spreadsheets_holds_no_formula(tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    _write_csv(file, [ENTRY])
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert (rows[0]["memo"], rows[0]["amount_udllm"]) == ("'=HYPERLINK(1)", "5")
    assert _harmless(-5) == -5


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageRefused, match="cannot be written"):
        _write_csv(tmp_path / "file" / "history.csv", [ENTRY])


def test_actions_are_named_in_words() -> None:
    assert _name(Transfer(b"a" * 20, 1)) == "transfer"
    assert _name(CloseSession(bytes(32), None, (), ())) == "close session"


async def test_each_action_counts_what_it_takes_from_the_account() -> None:
    world = World()
    chain = chain_of(world, "alice")
    world.provide("bob")
    world.block(after_ms=20_000)
    session = world.open("alice", "session 1")
    key = signer("alice's node")
    proof = prove_key(key, world.chain_id, address("alice"))
    taking: list[tuple[Record, ...]] = [
        (Transfer(address("carol"), 5), Transfer(address("dave"), 6)),
        (GrantChatKey(signer("chat").public_key, 1_000),),
        (world.registration("alice"), RegisterModel(make_manifest("hers"))),
        (BondProvider(provider_id("alice"), 7),),
        (world.opening("session 2", deposit_udllm=2_000_000),),
        (TopUpSession(session, 300),),
        (Stake(key.public_key, STAKE_UDLLM + 1, proof),),
        (Unstake(address_of(key.public_key), 1),),
        (UnbondProvider(provider_id("alice"), 8),),
    ]
    for actions in taking:
        before = world.balance("alice")
        world.do("alice", *actions)
        assert before - world.balance("alice") == await _taken(chain, actions) + FEE_UDLLM, actions


def test_what_is_missing_is_said() -> None:
    assert "0 of the 7 that you sent" in _text([ENTRY], 0, 7)
    assert "all that you ever sent" in _text([ENTRY], 7, 7)
    assert _text([], 0, 0) == "no transactions yet"
