"""No stake brings a solo engine to a block that it must not sign."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.actions import Stake, Unstake
from dllm_protocol.actions.validators import prove_key
from dllm_protocol.address import address_of, encode_address
from dllm_protocol.encoding import Record
from dllm_protocol.refusals import LastValidator, OneSeat
from dllm_protocol.signing import SeedSigner
from dllm_protocol.transaction import make_body, sign_transaction
from full_node.consensus.sign_state import SignState
from full_node.consensus.solo_chain import NotOurChain, SoloChain
from full_node.founding import Founding, found_chain, own_validator
from full_node.state.store import Store
from full_node.state_machine.application import Application
from tests.full_node.doubles import ManualClock

KEY, OWNER, STRANGER = (SeedSigner(bytes([n]) * 32) for n in (1, 2, 3))
FUNDS_UDLLM = 5_000_000_000
FEE_UDLLM = 100_000


def open_chain(home: Path, *, seats: int = 1) -> SoloChain:
    """A solo chain over the real state machine; not opened yet."""
    first = own_validator(KEY.public_key, encode_address("local", address_of(OWNER.public_key)), "local")
    accounts = [(address_of(one.public_key), FUNDS_UDLLM) for one in (OWNER, STRANGER)]
    genesis = found_chain(Founding("solo", "local", [first], accounts, seats))
    store = Store(home / "data.db")
    sign_state = SignState.load(home / "sign_state")
    return SoloChain(store, Application(store), genesis, KEY, sign_state, ManualClock())


def send(chain: SoloChain, sender: SeedSigner, sequence: int, action: Record) -> int:
    """A block with one transaction; its result code."""
    account = address_of(sender.public_key)
    body = make_body(chain.chain_id, account, sender.public_key, sequence, [action], fee_udllm=FEE_UDLLM)
    return chain.make_block([sign_transaction(sender, body).encode()]).results[0].code


def test_the_validator_of_a_solo_chain_stays_whatever_others_stake(tmp_path: Path) -> None:
    chain = open_chain(tmp_path)
    chain.open()
    newcomer = SeedSigner(b"n" * 32)
    proof = prove_key(newcomer, chain.chain_id, address_of(STRANGER.public_key))
    assert send(chain, STRANGER, 0, Stake(newcomer.public_key, 4_000_000_000, proof)) == OneSeat.abci_code
    assert send(chain, OWNER, 0, Stake(KEY.public_key, 500_000_000, b"")) == 0
    leaving = Unstake(address_of(KEY.public_key), 1_500_000_000)
    assert send(chain, OWNER, 1, leaving) == LastValidator.abci_code
    assert send(chain, OWNER, 2, replace(leaving, amount_udllm=200_000_000)) == 0
    for _ in range(2):
        chain.make_block([])
    assert [(one.public_key, one.voting_power) for one in chain.state.validators.validators] == [
        (KEY.public_key, 1_300)
    ]


def test_a_chain_with_more_seats_is_not_for_a_solo_engine(tmp_path: Path) -> None:
    chain = open_chain(tmp_path, seats=2)
    with pytest.raises(NotOurChain, match="seats for 2 validators") as refused:
        chain.open()
    assert "consensus engine" in refused.value.hint
