from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_chat.wallet.derivation import (
    COIN_TYPE,
    HARDENED,
    BadKeyPath,
    KeyPath,
    Role,
    WorkerKey,
    account_path,
    chat_path,
    derive,
    master_node,
    session_branch,
    session_path,
    worker_path,
)
from dllm_chat.wallet.keys import SigningKey
from dllm_chat.wallet.keystore import fingerprint_of
from dllm_chat.wallet.mnemonic import entropy_of, seed_of
from dllm_protocol.address import encode_address

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "keys.json"

# SLIP-0010, "Test vector 1 for ed25519" and "Test vector 2 for ed25519": path, chain code, private, public.
SLIP10_1 = "000102030405060708090a0b0c0d0e0f"
SLIP10_2 = (
    "fffcf9f6f3f0edeae7e4e1dedbd8d5d2cfccc9c6c3c0bdbab7b4b1aeaba8a5a2"
    "9f9c999693908d8a8784817e7b7875726f6c696663605d5a5754514e4b484542"
)
SLIP10 = [
    (
        SLIP10_1,
        (),
        "90046a93de5380a72b5e45010748567d5ea02bbf6522f979e05c0d8d8ca9fffb",
        "2b4be7f19ee27bbf30c667b642d5f4aa69fd169872f8fc3059c08ebae2eb19e7",
        "a4b2856bfec510abab89753fac1ac0e1112364e7d250545963f135f2a33188ed",
    ),
    (
        SLIP10_1,
        (0,),
        "8b59aa11380b624e81507a27fedda59fea6d0b779a778918a2fd3590e16e9c69",
        "68e0fe46dfb67e368c75379acec591dad19df3cde26e63b93a8e704f1dade7a3",
        "8c8a13df77a28f3445213a0f432fde644acaa215fc72dcdf300d5efaa85d350c",
    ),
    (
        SLIP10_1,
        (0, 1, 2, 2, 1000000000),
        "68789923a0cac2cd5a29172a475fe9e0fb14cd6adb5ad98a3fa70333e7afa230",
        "8f94d394a8e8fd6b1bc2f3f49f5c47e385281d5c17e65324b0f62483e37e8793",
        "3c24da049451555d51a7014a37337aa4e12d41e485abccfa46b47dfb2af54b7a",
    ),
    (
        SLIP10_2,
        (),
        "ef70a74db9c3a5af931b5fe73ed8e1a53464133654fd55e7a66f8570b8e33c3b",
        "171cb88b1b3c1db25add599712e36245d75bc65a1a5c9e18d76f9f2b1eab4012",
        "8fe9693f8fa62a4305a140b9764c5ee01e455963744fe18204b4fb948249308a",
    ),
    (
        SLIP10_2,
        (0, 2147483647, 1, 2147483646, 2),
        "5d70af781f3a37b829f0d060924d5e960bdc02e85423494afc0b1a41bbe196d4",
        "551d333177df541ad876a60ea71f00447931c0a9da16f227c11ea080d7391b8d",
        "47150c75db263559a70d5778bf36abbab30fb061ad69f69ece61a72b0cfa4fc0",
    ),
]


@pytest.mark.parametrize(("seed", "elements", "chain_code", "private", "public"), SLIP10)
def test_slip10s_own_vectors(
    seed: str, elements: tuple[int, ...], chain_code: str, private: str, public: str
) -> None:
    node = master_node(bytes.fromhex(seed)).descend(elements)
    assert node.key.hex() == private
    assert node.chain_code.hex() == chain_code
    assert SigningKey(node.key).public_key.hex() == public


@given(
    st.binary(min_size=16, max_size=64),
    st.lists(st.integers(0, HARDENED - 1), max_size=5),
)
def test_bip_utils_derives_the_same(seed: bytes, elements: list[int]) -> None:
    from bip_utils import Bip32Slip10Ed25519

    other = Bip32Slip10Ed25519.FromSeed(seed)
    for element in elements:
        other = other.ChildKey(element + HARDENED)
    assert master_node(seed).descend(elements).key == other.PrivateKey().Raw().ToBytes()


def golden_keys() -> list[dict[str, str]]:
    """Every path of ours for each vector's mnemonic, as keys.json holds them."""
    return json.loads(VECTORS.read_text())["wallets"]


@pytest.mark.parametrize("wallet", golden_keys(), ids=lambda wallet: str(wallet["fingerprint"]))
def test_our_golden_vectors(wallet: dict[str, object]) -> None:
    seed = seed_of(entropy_of(str(wallet["mnemonic"])), str(wallet["passphrase"]))
    assert seed.hex() == wallet["seed"]
    assert fingerprint_of(SigningKey(derive(seed, account_path(0))).public_key).hex() == wallet["fingerprint"]
    keys = wallet["keys"]
    assert isinstance(keys, list)
    paths = {
        "account 0": account_path(0),
        "account 1": account_path(1),
        "session 0": session_path(0, 0),
        "session 7": session_path(0, 7),
        "chat": chat_path(0),
        "operator": worker_path(0, 0, WorkerKey.OPERATOR),
        "service": worker_path(0, 0, WorkerKey.SERVICE),
        "sealing of worker 1": worker_path(0, 1, WorkerKey.SEALING),
    }
    assert [entry["for"] for entry in keys] == list(paths)
    for entry in keys:
        path = paths[entry["for"]]
        key = SigningKey(derive(seed, path))
        assert str(path) == entry["path"]
        assert key.reveal_seed().hex() == entry["private_key"]
        assert key.public_key.hex() == entry["public_key"]
        assert encode_address("dllm", key.address) == entry["address"]


def test_paths_are_spelled_hardened_throughout() -> None:
    assert str(session_path(3, 9)) == "m/44'/1145850957'/3'/1'/9'"
    assert worker_path(0, 2, WorkerKey.SEALING).index == 10
    assert KeyPath(0, Role.CHAT) == chat_path(0)


def test_roles_accounts_and_indices_never_share_a_key() -> None:
    seed = bytes(range(32))
    paths = [account_path(a) for a in range(3)] + [chat_path(a) for a in range(3)]
    paths += [session_path(a, i) for a in range(3) for i in range(3)]
    paths += [worker_path(0, w, kind) for w in range(3) for kind in WorkerKey]
    assert len({derive(seed, path) for path in paths}) == len(paths)


def test_the_session_branch_gives_the_same_session_keys() -> None:
    seed = bytes(range(64))
    assert session_branch(seed, 2).child(5).key == derive(seed, session_path(2, 5))


def test_our_coin_type_is_nobodys() -> None:
    from bip_utils.slip.slip44 import Slip44

    registered = {value for name, value in vars(Slip44).items() if isinstance(value, int)}
    assert len(registered) > 50
    assert COIN_TYPE not in registered
    assert COIN_TYPE < HARDENED


@pytest.mark.parametrize("value", [-1, HARDENED])
def test_indices_outside_31_bits_are_refused(value: int) -> None:
    with pytest.raises(BadKeyPath, match=str(value)):
        account_path(value)
    with pytest.raises(BadKeyPath, match=str(value)):
        session_path(0, value)
    with pytest.raises(BadKeyPath, match=str(value)):
        master_node(bytes(32)).child(value)


@pytest.mark.parametrize("size", [0, 15, 65])
def test_seeds_of_other_lengths_are_refused(size: int) -> None:
    with pytest.raises(BadKeyPath, match=f"not {size}"):
        master_node(bytes(size))


def test_a_node_does_not_show_itself() -> None:
    node = master_node(bytes(range(32)))
    assert node.key.hex() not in repr(node)
    assert repr(node) == "Node()"
