from __future__ import annotations

import copy
import pickle

import pytest

from dllm_chat.wallet.derivation import WorkerKey
from dllm_chat.wallet.errors import WalletIsLocked
from dllm_chat.wallet.keys import KeyTree, Secret, SigningKey
from dllm_protocol.signing import verify

SEED = bytes(range(32))


def test_rfc8032s_first_vector() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = SigningKey(seed)
    assert key.public_key.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )


def test_signatures_verify_and_belong_to_the_message() -> None:
    key = SigningKey(SEED)
    signature = key.sign(b"message")
    assert verify(key.public_key, b"message", signature)
    assert not verify(key.public_key, b"massage", signature)
    assert len(key.address) == 20


@pytest.mark.parametrize(
    "holder", [SigningKey(SEED), Secret(SEED), KeyTree(SEED)], ids=lambda h: type(h).__name__
)
def test_no_holder_shows_or_copies_its_secret(holder: object) -> None:
    for text in (
        repr(holder),
        str(holder),
        f"{holder}",
        f"{holder!r:>10}",
        repr([holder]),
        repr({"k": holder}),
    ):
        assert SEED.hex() not in text
        assert str(SEED) not in text
        assert "\\x01\\x02\\x03" not in text
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never copied or pickled"):
            attempt(holder)
    assert not hasattr(holder, "__dict__")


def test_a_wiped_key_signs_no_more_and_its_buffer_is_zero() -> None:
    secret = Secret(SEED)
    buffer = secret._bytes
    secret.wipe()
    secret.wipe()
    assert buffer == bytearray(32)
    assert secret.wiped
    key = SigningKey(SEED)
    key.wipe()
    with pytest.raises(WalletIsLocked):
        key.sign(b"message")
    with pytest.raises(WalletIsLocked):
        key.reveal_seed()
    assert key.public_key.hex() in repr(key)


def test_wiping_the_tree_wipes_the_keys_it_gave() -> None:
    tree = KeyTree(SEED)
    handed_out = [
        tree.account_key(),
        tree.session_key(4),
        tree.chat_key(1),
        tree.worker_key(WorkerKey.SERVICE),
    ]
    assert tree.account_key() is handed_out[0]
    tree.wipe()
    for key in handed_out:
        with pytest.raises(WalletIsLocked):
            key.sign(b"")
    with pytest.raises(WalletIsLocked):
        tree.account_key()
    with pytest.raises(WalletIsLocked):
        tree.session_branch()
    assert repr(tree) == "KeyTree(locked)"
