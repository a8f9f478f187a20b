from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dllm_chat.wallet import keystore
from dllm_chat.wallet.errors import (
    BadMnemonic,
    BadName,
    FileDamaged,
    NoPassword,
    NoSuchWallet,
    WalletExists,
    WalletIsLocked,
    WeakPassword,
    WrongPassword,
)
from dllm_chat.wallet.json_file import write_json
from dllm_chat.wallet.keystore import OpenedKeystore
from dllm_chat.wallet.manager import WalletManager
from dllm_chat.wallet.mnemonic import entropy_of
from dllm_chat.wallet.password import NoPasswordSource
from dllm_chat.wallet.profile import SessionCounter
from dllm_protocol.actions import Transfer
from dllm_protocol.transaction import make_body
from tests.dllm_chat.wallet.parts import CHEAP, MNEMONIC, PASSWORD, Typed, TypedTwice, manager_in


@pytest.fixture
def manager(tmp_path: Path) -> WalletManager:
    return manager_in(tmp_path)


def test_a_created_wallet_unlocks_to_the_same_keys(manager: WalletManager) -> None:
    mnemonic, created = manager.create("main", Typed(PASSWORD), word_count=24)
    assert len(mnemonic.split()) == 24
    with manager.unlock(None, Typed(PASSWORD)) as unlocked:
        assert unlocked.account_key().public_key == created.account_key().public_key
        assert unlocked.fingerprint == created.fingerprint == manager.info().fingerprint
        assert unlocked.name == "main"
    assert manager.reveal_mnemonic("main", Typed(PASSWORD)) == mnemonic


def test_words_and_passphrase_restore_the_wallet_anywhere(tmp_path: Path) -> None:
    here, there = manager_in(tmp_path / "a"), manager_in(tmp_path / "b")
    mnemonic, first = here.create("main", Typed(PASSWORD), passphrase="salt")
    again = there.restore("other", mnemonic.upper(), Typed("another good pass phrase"), passphrase="salt")
    typo = there.restore("typo", mnemonic, Typed(PASSWORD), passphrase="slat")
    assert again.account_key().public_key == first.account_key().public_key
    assert again.fingerprint == first.fingerprint != typo.fingerprint


def test_the_password_is_checked(manager: WalletManager) -> None:
    manager.create("main", Typed(PASSWORD))
    with pytest.raises(WrongPassword):
        manager.unlock("main", Typed("wrong " + PASSWORD))
    with pytest.raises(WrongPassword):
        manager.reveal_mnemonic("main", Typed("wrong " + PASSWORD))
    with pytest.raises(NoPassword, match="nobody to ask"):
        manager.unlock("main", NoPasswordSource())
    with pytest.raises(WeakPassword):
        manager.create("second", Typed("short"))
    assert [info.name for info in manager.list()] == ["main"]


def test_a_person_types_a_new_password_twice(manager: WalletManager) -> None:
    with pytest.raises(NoPassword, match="differ"):
        manager.create("main", TypedTwice(PASSWORD, PASSWORD + "x"))
    person = TypedTwice(PASSWORD)
    manager.create("main", person)
    assert len(person.prompts) == 2
    manager.unlock("main", person)
    assert len(person.prompts) == 3


def test_a_refused_creation_leaves_nothing(manager: WalletManager, tmp_path: Path) -> None:
    with pytest.raises(BadMnemonic):
        manager.restore("main", "legal " * 12, Typed(PASSWORD))
    with pytest.raises(BadName):
        manager.restore("main", MNEMONIC, Typed(PASSWORD), label="")
    assert manager.list() == ()
    assert not (tmp_path / "wallets").exists()


def test_the_first_wallet_is_the_default_until_another_is_chosen(manager: WalletManager) -> None:
    with pytest.raises(NoSuchWallet, match="no wallet yet") as caught:
        manager.unlock(None, Typed(PASSWORD))
    assert "wallet create" in caught.value.hint
    manager.create("one", Typed(PASSWORD))
    manager.create("two", Typed(PASSWORD))
    assert [(info.name, info.is_default) for info in manager.list()] == [("one", True), ("two", False)]
    manager.set_default("two")
    assert manager.resolve(None) == "two"
    with pytest.raises(NoSuchWallet, match="'three'") as missing:
        manager.set_default("three")
    assert "one, two" in missing.value.hint


def test_renaming_keeps_keys_numbers_and_default(manager: WalletManager) -> None:
    _, wallet = manager.create("old", Typed(PASSWORD))
    wallet.next_session_key()
    manager.create("other", Typed(PASSWORD))
    manager.rename("old", "new")
    assert manager.default_name() == "new"
    again = manager.unlock("new", Typed(PASSWORD))
    assert again.account_key().public_key == wallet.account_key().public_key
    assert again.next_session_key()[0] == 1
    with pytest.raises(WalletExists):
        manager.rename("new", "other")
    with pytest.raises(NoSuchWallet):
        manager.rename("old", "newer")


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "Main", "x" * 33, "a b", "-a", "a\n", "é"])
def test_names_that_could_leave_the_folder_are_refused(manager: WalletManager, name: str) -> None:
    with pytest.raises(BadName):
        manager.create(name, Typed(PASSWORD))


def test_a_name_is_taken_once(manager: WalletManager) -> None:
    _, wallet = manager.create("main", Typed(PASSWORD))
    with pytest.raises(WalletExists):
        manager.create("main", Typed(PASSWORD))
    assert manager.unlock("main", Typed(PASSWORD)).fingerprint == wallet.fingerprint


def test_changing_the_password(manager: WalletManager) -> None:
    _, wallet = manager.create("main", Typed(PASSWORD))
    new = "paper kettle orbit maple"
    with pytest.raises(WrongPassword):
        manager.change_password("main", Typed(new), Typed(new))
    with pytest.raises(WeakPassword):
        manager.change_password("main", Typed(PASSWORD), Typed("1234567890"))
    manager.change_password("main", Typed(PASSWORD), TypedTwice(new))
    assert manager.unlock("main", Typed(new)).fingerprint == wallet.fingerprint
    with pytest.raises(WrongPassword):
        manager.unlock("main", Typed(PASSWORD))


def test_accounts_are_added_labelled_and_shown_while_locked(manager: WalletManager) -> None:
    _, wallet = manager.create("main", Typed(PASSWORD))
    added = wallet.add_account("savings")
    assert (added.index, added.public_key) == (1, wallet.account_key(1).public_key)
    manager.label_account("main", 0, "daily")
    assert [(a.index, a.label) for a in manager.info().accounts] == [(0, "daily"), (1, "savings")]
    assert added.address_text("local").startswith("local1")
    with pytest.raises(NoSuchWallet, match="no account 7"):
        manager.label_account("main", 7, "x")
    with pytest.raises(BadName):
        wallet.add_account("two\nlines")


def test_an_address_planted_in_the_profile_is_noticed(manager: WalletManager, tmp_path: Path) -> None:
    _, wallet = manager.create("main", Typed(PASSWORD))
    wallet.add_account("savings")
    path = tmp_path / "wallets" / "main" / "profile.json"
    for index in (1, 0):
        content = json.loads(path.read_bytes())
        del content["checksum"]
        content["accounts"][index]["public_key"] = bytes(32).hex()
        write_json(path, content)
        with pytest.raises(FileDamaged, match=f"account {index} "):
            manager.unlock("main", Typed(PASSWORD))
        if index == 0:
            with pytest.raises(FileDamaged, match="account 0"):
                manager.info("main")
        else:
            content["accounts"][1]["public_key"] = wallet.account_key(1).public_key.hex()
            write_json(path, content)


def test_locking_wipes_every_key_and_spends_no_number(manager: WalletManager) -> None:
    _, wallet = manager.create("main", Typed(PASSWORD))
    key = wallet.account_key()
    wallet.lock()
    assert wallet.locked
    with pytest.raises(WalletIsLocked):
        key.sign(b"")
    with pytest.raises(WalletIsLocked):
        wallet.next_session_key()
    assert wallet.sessions.peek() == 0


def test_a_wallet_signs_transactions_and_shows_no_secret(manager: WalletManager) -> None:
    wallet = manager.restore("main", MNEMONIC, Typed(PASSWORD))
    key = wallet.account_key()
    body = make_body("dllm-1", key.address, key.public_key, 0, [Transfer(bytes(20), 1)], fee_udllm=1)
    assert wallet.sign_transaction(body).signature_fits
    assert repr(wallet) == f"UnlockedWallet('main', {wallet.fingerprint.hex()})"
    with pytest.raises(TypeError, match="never copied"):
        wallet.__reduce_ex__(2)


def test_session_numbers_go_on_across_unlocks_and_accounts(manager: WalletManager) -> None:
    _, wallet = manager.create("main", Typed(PASSWORD))
    assert [wallet.next_session_key()[0] for _ in range(3)] == [0, 1, 2]
    again = manager.unlock("main", Typed(PASSWORD))
    index, key = again.next_session_key()
    assert index == 3
    assert key.public_key == wallet.session_key(3).public_key
    assert again.next_session_key(account=1)[0] == 0
    again.sessions.raise_to(10)
    again.sessions.raise_to(5)
    assert wallet.next_session_key()[0] == 10


def take_many(folder: str, count: int) -> list[int]:
    counter = SessionCounter(Path(folder))
    return [counter.take() for _ in range(count)]


def test_two_terminals_never_get_the_same_session_number(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        taken = pool.starmap(take_many, [(str(tmp_path), 20)] * 3)
    assert sorted(number for numbers in taken for number in numbers) == list(range(60))


def test_a_terminal_killed_while_taking_a_number_repeats_none(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from dllm_chat.wallet.profile import SessionCounter\n"
        "counter = SessionCounter(Path(sys.argv[1]))\n"
        "print(counter.take(), flush=True)\n"
        "import dllm_chat.paths as paths\n"
        "paths.sync_folder = lambda folder: os.kill(os.getpid(), signal.SIGKILL)\n"
        "counter.take()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b"0\n"
    assert SessionCounter(tmp_path).take() in {1, 2}


def test_an_older_keystore_is_sealed_anew_when_opened(
    manager: WalletManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet = manager.restore("main", MNEMONIC, Typed(PASSWORD))
    path = tmp_path / "wallets" / "main" / "keystore.json"
    public_key = wallet.account_key().public_key
    old = {"format": keystore.FORMAT, "version": 0, "public_key": public_key.hex()}
    write_json(path, old)

    def open_v0(content: dict[str, object], password: str) -> OpenedKeystore:
        return OpenedKeystore(keystore.WalletSecret(entropy_of(MNEMONIC)), public_key, 0)

    monkeypatch.setattr(keystore, "OPENERS", {**keystore.OPENERS, 0: open_v0})
    manager.unlock("main", Typed(PASSWORD))
    assert json.loads(path.read_bytes())["version"] == keystore.VERSION
    assert manager.unlock("main", Typed(PASSWORD)).fingerprint == wallet.fingerprint


def test_everything_in_the_folder_is_private(manager: WalletManager, tmp_path: Path) -> None:
    _, wallet = manager.create("main", Typed(PASSWORD))
    wallet.next_session_key()
    for entry in (tmp_path / "wallets").rglob("*"):
        assert entry.stat().st_mode & 0o777 == (0o700 if entry.is_dir() else 0o600), entry
    assert WalletManager(tmp_path / "wallets", cost=CHEAP).folder_of() == tmp_path / "wallets" / "main"


def test_no_secret_reaches_the_log(manager: WalletManager, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    mnemonic, wallet = manager.create("main", Typed(PASSWORD))
    wallet.add_account("savings")
    with pytest.raises(WrongPassword):
        manager.unlock("main", Typed("x" + PASSWORD))
    assert PASSWORD not in caplog.text
    assert mnemonic not in caplog.text
