from __future__ import annotations

import json
from pathlib import Path

import pytest

from dllm_chat.wallet.chat_key import ChatKeyStore
from dllm_chat.wallet.errors import (
    BeyondChatKey,
    FileDamaged,
    KeyringUnusable,
    NoPassword,
    WalletIsLocked,
)
from dllm_chat.wallet.open_wallet import UnlockedWallet
from dllm_chat.wallet.wrapping_key import WrappingKeys
from dllm_protocol.actions import CloseSession, GrantChatKey, OpenSession, TopUpSession, Transfer
from dllm_protocol.encoding import Record
from dllm_protocol.transaction import TransactionBody, make_body
from tests.dllm_chat.wallet.parts import MNEMONIC, PASSWORD, DictKeyring, Typed, manager_in

CAP_UDLLM = 5_000_000


class BrokenKeyring(DictKeyring):
    """What a headless machine's keyring does."""

    def set_password(self, service: str, username: str, password: str, /) -> None:
        raise RuntimeError("no D-Bus session")


class ForgetfulKeyring(DictKeyring):
    """Takes everything and keeps nothing, as keyring's null backend does."""

    def set_password(self, service: str, username: str, password: str, /) -> None:
        return


@pytest.fixture
def wallet(tmp_path: Path) -> UnlockedWallet:
    return manager_in(tmp_path).restore("main", MNEMONIC, Typed(PASSWORD))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "wallets" / "main"


def body_with(wallet: UnlockedWallet, public_key: bytes, action: Record) -> TransactionBody:
    return make_body("dllm-1", wallet.account_key().address, public_key, 0, [action], fee_udllm=1)


@pytest.mark.parametrize(
    "keyring", [DictKeyring(), BrokenKeyring(), ForgetfulKeyring()], ids=lambda k: type(k).__name__
)
def test_the_chat_key_works_while_the_wallet_is_locked(
    wallet: UnlockedWallet, folder: Path, keyring: DictKeyring
) -> None:
    store = ChatKeyStore(folder, WrappingKeys("auto", keyring))
    expected = wallet.keys.chat_key().public_key
    session_public_key = wallet.session_key(0).public_key
    account_address = wallet.account_key().address
    assert store.save(wallet, CAP_UDLLM) == expected
    wallet.lock()
    chat = ChatKeyStore(folder, WrappingKeys("auto", keyring)).load()
    assert (chat.public_key, chat.cap_udllm, chat.account_address) == (expected, CAP_UDLLM, account_address)
    index, key = chat.next_session_key()
    assert (index, key.public_key) == (0, session_public_key)
    assert chat.next_session_key()[0] == 1
    in_keyring = type(keyring) is DictKeyring
    assert bool(keyring.entries) == in_keyring
    assert (folder / "chat_key-0.wrap.json").exists() != in_keyring


def test_it_signs_only_what_sessions_need(wallet: UnlockedWallet, folder: Path) -> None:
    store = ChatKeyStore(folder, WrappingKeys("file"))
    store.save(wallet, CAP_UDLLM)
    chat = store.load()
    transaction = chat.sign_transaction(body_with(wallet, chat.public_key, TopUpSession(bytes(32), 1)))
    assert transaction.signature_fits
    assert transaction.by_chat_key
    for action in (Transfer(bytes(20), 1), GrantChatKey(bytes(32), 1)):
        with pytest.raises(BeyondChatKey, match=type(action).__name__):
            chat.sign_transaction(body_with(wallet, chat.public_key, action))
    foreign = make_body("dllm-1", bytes(20), chat.public_key, 0, [TopUpSession(bytes(32), 1)], fee_udllm=1)
    with pytest.raises(BeyondChatKey, match="belongs to account"):
        chat.sign_transaction(foreign)


def test_the_allowed_actions_are_these_three() -> None:
    from dllm_chat.wallet.chat_key import ALLOWED_ACTIONS

    assert set(ALLOWED_ACTIONS) == {OpenSession, TopUpSession, CloseSession}


def test_an_os_keyring_that_does_not_work_is_refused_when_demanded(
    wallet: UnlockedWallet, folder: Path
) -> None:
    for keyring in (BrokenKeyring(), ForgetfulKeyring()):
        with pytest.raises(KeyringUnusable, match="does not work") as caught:
            ChatKeyStore(folder, WrappingKeys("os", keyring)).save(wallet, CAP_UDLLM)
        assert "file" in caught.value.hint
    assert not list(folder.glob("chat_key*"))


def test_the_systems_failing_backend_means_the_file(
    wallet: UnlockedWallet, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keyring
    from keyring.backends import fail

    monkeypatch.setattr(keyring, "get_keyring", fail.Keyring)
    store = ChatKeyStore(folder, WrappingKeys("auto"))
    store.save(wallet, CAP_UDLLM)
    assert json.loads((folder / "chat_key-0.json").read_bytes())["backend"] == "file"
    assert store.load().cap_udllm == CAP_UDLLM


def test_without_either_half_it_says_what_to_do(wallet: UnlockedWallet, folder: Path) -> None:
    keyring = DictKeyring()
    store = ChatKeyStore(folder, WrappingKeys("auto", keyring))
    with pytest.raises(NoPassword, match="no chat key"):
        store.load()
    store.save(wallet, CAP_UDLLM)
    keyring.entries.clear()
    with pytest.raises(NoPassword, match="no longer has"):
        store.load()
    store = ChatKeyStore(folder, WrappingKeys("file"))
    store.save(wallet, CAP_UDLLM)
    (folder / "chat_key-0.wrap.json").unlink()
    with pytest.raises(NoPassword, match="gone"):
        store.load()


def test_saving_again_and_forgetting_leave_no_old_halves(wallet: UnlockedWallet, folder: Path) -> None:
    keyring = DictKeyring()
    store = ChatKeyStore(folder, WrappingKeys("auto", keyring))
    store.save(wallet, CAP_UDLLM)
    store.save(wallet, 2 * CAP_UDLLM)
    assert len(keyring.entries) == 1
    assert store.load().cap_udllm == 2 * CAP_UDLLM
    store.save(wallet, CAP_UDLLM, account=1)
    assert len(keyring.entries) == 2
    store.forget()
    store.forget(1)
    store.forget(1)
    assert not keyring.entries
    assert not list(folder.glob("chat_key*"))


def test_no_byte_of_either_half_can_change(wallet: UnlockedWallet, folder: Path) -> None:
    store = ChatKeyStore(folder, WrappingKeys("file"))
    store.save(wallet, CAP_UDLLM)
    for name in ("chat_key-0.json", "chat_key-0.wrap.json"):
        path = folder / name
        whole = path.read_bytes()
        for index in range(0, len(whole), 7):
            changed = bytearray(whole)
            changed[index] ^= 1
            path.write_bytes(changed)
            with pytest.raises(FileDamaged):
                store.load()
        path.write_bytes(whole)
    assert store.load().cap_udllm == CAP_UDLLM


def test_a_raised_cap_or_another_accounts_file_is_noticed(wallet: UnlockedWallet, folder: Path) -> None:
    from dllm_chat.wallet.json_file import write_json

    store = ChatKeyStore(folder, WrappingKeys("file"))
    store.save(wallet, CAP_UDLLM)
    path = folder / "chat_key-0.json"
    (folder / "chat_key-1.json").write_bytes(path.read_bytes())
    with pytest.raises(FileDamaged, match="account 0's, not account 1's"):
        store.load(1)
    content = json.loads(path.read_bytes())
    del content["checksum"]
    content["cap_udllm"] += 1
    write_json(path, content)
    with pytest.raises(FileDamaged, match="do not fit"):
        store.load()


def test_files_hold_neither_the_seed_nor_the_account_key(wallet: UnlockedWallet, folder: Path) -> None:
    store = ChatKeyStore(folder, WrappingKeys("file"))
    store.save(wallet, CAP_UDLLM)
    written = b"".join(path.read_bytes() for path in folder.glob("chat_key*"))
    for secret in (wallet.account_key().reveal_seed(), wallet.keys.chat_key().reveal_seed()):
        assert secret.hex().encode() not in written
    for path in folder.glob("chat_key*"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_locking_the_chat_key_wipes_its_sessions(wallet: UnlockedWallet, folder: Path) -> None:
    store = ChatKeyStore(folder, WrappingKeys("file"))
    store.save(wallet, CAP_UDLLM)
    chat = store.load()
    _, session = chat.next_session_key()
    text = repr(chat)
    chat.lock()
    with pytest.raises(WalletIsLocked):
        session.sign(b"")
    with pytest.raises(WalletIsLocked):
        chat.next_session_key()
    assert "cap 5000000" in text
    assert wallet.keys.chat_key().reveal_seed().hex() not in text


@pytest.mark.parametrize("cap_udllm", [0, -1, 1 << 60])
def test_a_cap_is_an_amount(wallet: UnlockedWallet, folder: Path, cap_udllm: int) -> None:
    with pytest.raises(BeyondChatKey, match=str(cap_udllm)):
        ChatKeyStore(folder, WrappingKeys("file")).save(wallet, cap_udllm)
