from __future__ import annotations

import random
from pathlib import Path

import pytest

from dllm_chat.wallet.errors import FileDamaged, WalletExists, WrongChain
from dllm_chat.wallet.open_wallet import OpenWallet
from dllm_chat.wallet.play_wallet import bind_play_wallet, create_play_wallet, open_play_wallet
from dllm_protocol.actions import Transfer
from dllm_protocol.transaction import TransactionBody, make_body


def transfer(wallet: OpenWallet, chain_id: str) -> TransactionBody:
    key = wallet.account_key()
    return make_body(chain_id, key.address, key.public_key, 0, [Transfer(bytes(20), 1)], fee_udllm=1)


def test_made_bound_and_opened(tmp_path: Path) -> None:
    made = create_play_wallet(tmp_path)
    bind_play_wallet(tmp_path, "local-0a1b2c3d")
    bind_play_wallet(tmp_path, "local-0a1b2c3d")
    wallet = open_play_wallet(tmp_path, "local-0a1b2c3d")
    assert wallet.account_key().public_key == made.account_key().public_key
    assert wallet.sign_transaction(transfer(wallet, "local-0a1b2c3d")).signature_fits
    assert wallet.next_session_key()[0] == 0
    assert open_play_wallet(tmp_path, "local-0a1b2c3d").next_session_key()[0] == 1


def test_it_signs_for_no_other_chain(tmp_path: Path) -> None:
    unbound = create_play_wallet(tmp_path)
    with pytest.raises(WrongChain, match="no chain yet"):
        unbound.sign_transaction(transfer(unbound, "local-0a1b2c3d"))
    with pytest.raises(WrongChain, match="no chain yet"):
        open_play_wallet(tmp_path, "local-0a1b2c3d")
    wallet = bind_play_wallet(tmp_path, "local-0a1b2c3d")
    with pytest.raises(WrongChain, match="'local-0a1b2c3d', not to 'dllm-1'"):
        wallet.sign_transaction(transfer(wallet, "dllm-1"))
    with pytest.raises(WrongChain):
        open_play_wallet(tmp_path, "dllm-1")
    with pytest.raises(WrongChain):
        bind_play_wallet(tmp_path, "dllm-1")
    with pytest.raises(WrongChain, match="not empty"):
        bind_play_wallet(tmp_path, "")


def test_one_home_makes_one_and_each_home_its_own(tmp_path: Path) -> None:
    first = create_play_wallet(tmp_path / "a")
    second = create_play_wallet(tmp_path / "b")
    assert first.fingerprint != second.fingerprint
    with pytest.raises(WalletExists):
        create_play_wallet(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        open_play_wallet(tmp_path / "c", "local-0a1b2c3d")


def test_its_file_is_private_and_damage_is_noticed(tmp_path: Path) -> None:
    wallet = create_play_wallet(tmp_path, random.Random(3).randbytes)
    path = tmp_path / "play_wallet.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert random.Random(3).randbytes(32).hex() not in repr(wallet)
    whole = path.read_bytes()
    for index in range(len(whole)):
        changed = bytearray(whole)
        changed[index] ^= 4
        path.write_bytes(changed)
        with pytest.raises(FileDamaged):
            bind_play_wallet(tmp_path, "local-0a1b2c3d")
