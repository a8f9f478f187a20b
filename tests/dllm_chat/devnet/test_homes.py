"""Which homes ask on a devnet at once, and that no other network is pushed aside for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dllm_chat.devnet.chain import WALLET_UDLLM, Holders, make_genesis
from dllm_chat.devnet.homes import OwnHome
from dllm_chat.paths import find_paths
from dllm_chat.session.networks import (
    join_network,
    joined_network,
    pays_with_play_wallet,
    play_wallet_folder,
)
from dllm_chat.wallet.play_wallet import open_play_wallet
from dllm_protocol.bundle import SignedBundle, sign_bundle
from dllm_protocol.genesis import Genesis
from dllm_protocol.signing import SeedSigner
from full_node.state_machine.genesis import genesis_state
from tests.dllm_protocol.test_bundle import SIGNER, make_bundle

VALIDATORS = [(SeedSigner(bytes([n]) * 32).public_key, bytes([n]) * 20) for n in (1, 2, 3, 4)]


def genesis_for(*wallets: bytes, nonce: int = 7, seats: int = 16) -> Genesis:
    holders = Holders(wallets=wallets, workers=[b"\x21" * 20], faucet=b"\x22" * 20, validators=VALIDATORS)
    return make_genesis(holders, seats=seats, genesis_time_ms=1_700_000_000_000, nonce=bytes([nonce]) * 32)


def devnet_of(*wallets: bytes, nonce: int = 7) -> SignedBundle:
    return sign_bundle(SIGNER, replace(make_bundle("tdllm"), genesis=genesis_for(*wallets, nonce=nonce)))


@pytest.fixture
def home(tmp_path: Path) -> OwnHome:
    return OwnHome(find_paths(tmp_path))


def test_the_genesis_is_one_that_a_chain_can_start_from() -> None:
    genesis = genesis_for(b"\x31" * 20, b"\x32" * 20)
    assert genesis_state(genesis)
    assert {account.address: account.balance_udllm for account in genesis.accounts}[b"\x32" * 20] == (
        WALLET_UDLLM
    )
    assert len({validator.stake_udllm for validator in genesis.validators}) == 1


def test_a_funded_home_uses_the_devnet_and_lets_go_of_it(home: OwnHome) -> None:
    with home.make_wallet() as wallet:
        signed = devnet_of(wallet.account_key().address)
    chain_id = signed.bundle.chain_id
    assert home.adopt(signed)
    assert pays_with_play_wallet(home.paths, "")
    assert not pays_with_play_wallet(home.paths, "main")
    with open_play_wallet(play_wallet_folder(home.paths, chain_id), chain_id) as bound:
        assert bound.chain_id == chain_id
    home.leave(chain_id)
    assert joined_network(home.paths) is None
    assert home.adopt(signed), "the wallet is still there"
    home.forget(chain_id)
    assert joined_network(home.paths) is None
    assert not home.adopt(signed)


def test_another_network_in_use_stays_in_use(home: OwnHome) -> None:
    with home.make_wallet() as wallet:
        signed = devnet_of(wallet.account_key().address)
    other = sign_bundle(SIGNER, make_bundle("dllm"))
    join_network(home.paths, other.encode(), confirmed_signer=SIGNER.public_key)
    assert not home.is_free
    assert not home.adopt(signed)
    joined = joined_network(home.paths)
    assert joined is not None
    assert joined.bundle.chain_id == other.bundle.chain_id
    home.leave(signed.bundle.chain_id)
    assert joined_network(home.paths) is not None
    assert not pays_with_play_wallet(home.paths, "")


def test_a_draft_of_a_founding_that_came_to_nothing_is_not_used(home: OwnHome) -> None:
    home.make_wallet().lock()
    assert not home.adopt(devnet_of(b"\x31" * 20))
    with home.make_wallet() as wallet:
        assert home.adopt(devnet_of(wallet.account_key().address, nonce=8))
