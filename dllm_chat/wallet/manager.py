"""All wallets of one home: made, found, unlocked, renamed; one folder each."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dllm_chat.paths import file_lock, make_private_folder, sync_folder
from dllm_chat.wallet.errors import BadName, FileDamaged, NoSuchWallet, WalletExists
from dllm_chat.wallet.json_file import read_json, write_json
from dllm_chat.wallet.keys import KeyTree
from dllm_chat.wallet.keystore import (
    DEFAULT_COST,
    VERSION,
    KdfCost,
    WalletSecret,
    open_keystore,
    read_public,
    seal_keystore,
)
from dllm_chat.wallet.mnemonic import entropy_of, generate_entropy, seed_of, words_of
from dllm_chat.wallet.open_wallet import UnlockedWallet
from dllm_chat.wallet.password import PasswordSource, read_new_password
from dllm_chat.wallet.profile import Account, Profile, SessionCounter, check_label

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_DEFAULT_FORMAT = "dllm-default-wallet"
MAX_WALLETS = 1000


@dataclass(frozen=True, slots=True)
class WalletInfo:
    """What a locked wallet shows."""

    name: str
    fingerprint: bytes
    """4 bytes."""
    accounts: tuple[Account, ...]
    is_default: bool


class WalletManager:
    """The wallets under ``folder`` (`dllm_chat.paths.Paths.wallets`).

    Unlocking, creating and changing a password take about 0.3 s of one core and 256 MiB: call them from a
    thread where an event loop runs.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cost: KdfCost = DEFAULT_COST,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._folder = folder
        self._cost = cost
        self._random_bytes = random_bytes

    def create(
        self, name: str, source: PasswordSource, *, word_count: int = 12, passphrase: str = ""
    ) -> tuple[str, UnlockedWallet]:
        """A new wallet, and its mnemonic, to be shown this once.

        A ceremony that asks the words back before anything is kept calls `generate_entropy`, `words_of` and
        then `restore` instead.
        """
        mnemonic = words_of(generate_entropy(word_count, self._random_bytes))
        return mnemonic, self.restore(name, mnemonic, source, passphrase=passphrase)

    def restore(
        self, name: str, mnemonic: str, source: PasswordSource, *, passphrase: str = "", label: str = "main"
    ) -> UnlockedWallet:
        """A wallet from its words. The first wallet becomes the default.

        Raises:
            BadName, WalletExists, BadMnemonic, WeakPassword, NoPassword.
        """
        self._check_free(name)
        check_label(label)
        secret = WalletSecret(entropy_of(mnemonic), passphrase)
        keys = KeyTree(seed_of(secret.entropy, passphrase))
        password = read_new_password(source, f"New password for wallet {name}")
        make_private_folder(self._folder)
        public_key = keys.account_key().public_key
        draft = make_private_folder(self._folder / f".new-{secrets.token_hex(8)}")
        try:
            seal_keystore(
                draft / "keystore.json",
                secret,
                password,
                public_key,
                cost=self._cost,
                random_bytes=self._random_bytes,
            )
            Profile(draft).put(Account(0, label, public_key))
            with self._lock():
                self._check_free(name)
                draft.rename(self._folder / name)
                sync_folder(self._folder)
                if not self._default_file.exists():
                    self._write_default(name)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return self._opened(name, keys)

    def check_name(self, name: str) -> None:
        """Refuse a name before a ceremony begins.

        Raises:
            BadName, WalletExists.
        """
        self._check_free(name)

    def unlock(self, name: str | None, source: PasswordSource) -> UnlockedWallet:
        """Open a wallet, the default one for None. A keystore of an older version is sealed anew.

        Raises:
            NoSuchWallet, NoPassword, WrongPassword, FileDamaged, UnknownVersion.
        """
        name = self.resolve(name)
        path = self._folder / name / "keystore.json"
        password = source.read(f"Password for wallet {name}")
        opened = open_keystore(path, password)
        keys = self._keys_of(opened.secret, opened.public_key, path)
        if opened.version < VERSION:
            seal_keystore(path, opened.secret, password, opened.public_key, cost=self._cost)
        wallet = self._opened(name, keys)
        wallet.accounts()
        return wallet

    def reveal_mnemonic(self, name: str | None, source: PasswordSource) -> str:
        """The words of a wallet, after its password."""
        name = self.resolve(name)
        opened = open_keystore(
            self._folder / name / "keystore.json", source.read(f"Password for wallet {name}")
        )
        return words_of(opened.secret.entropy)

    def change_password(self, name: str | None, old: PasswordSource, new: PasswordSource) -> None:
        """Seal a wallet under another password. Copies of the old file still open with the old one."""
        name = self.resolve(name)
        path = self._folder / name / "keystore.json"
        opened = open_keystore(path, old.read(f"Password for wallet {name}"))
        password = read_new_password(new, f"New password for wallet {name}")
        seal_keystore(
            path,
            opened.secret,
            password,
            opened.public_key,
            cost=self._cost,
            random_bytes=self._random_bytes,
        )

    def list(self) -> tuple[WalletInfo, ...]:
        """All wallets, by name, without a password."""
        return tuple(self.info(name) for name in self._names())

    def info(self, name: str | None = None) -> WalletInfo:
        """One wallet, the default one for None."""
        name = self.resolve(name)
        public_key, fingerprint = read_public(self._folder / name / "keystore.json")
        accounts = Profile(self._folder / name).accounts()
        if accounts[0].public_key != public_key:
            raise FileDamaged(
                f"account 0 of wallet {name} has key {accounts[0].public_key.hex()} in the profile, "
                f"{public_key.hex()} in the keystore"
            )
        return WalletInfo(name, fingerprint, accounts, name == self.default_name())

    def resolve(self, name: str | None) -> str:
        """The wallet meant: the one named, else the default one.

        Raises:
            NoSuchWallet: there is none of that name, or none at all.
        """
        names = self._names()
        chosen = name or self.default_name()
        if chosen is None:
            raise NoSuchWallet("there is no wallet yet", hint="dllm wallet create NAME makes one")
        if chosen not in names:
            raise NoSuchWallet(
                f"there is no wallet {chosen[:40]!r}", hint=f"there are: {', '.join(names) or 'none'}"
            )
        return chosen

    def default_name(self) -> str | None:
        """Name of the default wallet; None where there is none."""
        try:
            content = read_json(self._default_file, _DEFAULT_FORMAT, 1)
        except FileNotFoundError:
            return None
        return str(content.get("name"))

    def set_default(self, name: str) -> None:
        """Make a wallet the default one."""
        with self._lock():
            self._write_default(self.resolve(name))

    def rename(self, name: str, new_name: str) -> None:
        """Give a wallet another name; the default one stays the default."""
        with self._lock():
            name = self.resolve(name)
            self._check_free(new_name)
            was_default = self.default_name() == name
            (self._folder / name).rename(self._folder / new_name)
            sync_folder(self._folder)
            if was_default:
                self._write_default(new_name)

    def label_account(self, name: str | None, index: int, label: str) -> None:
        """Give an account another label; needs no password."""
        profile = Profile(self._folder / self.resolve(name))
        profile.put(Account(index, label, profile.account(index).public_key))

    def folder_of(self, name: str | None = None) -> Path:
        """Where a wallet's files lie (its chat key's among them)."""
        return self._folder / self.resolve(name)

    def _opened(self, name: str, keys: KeyTree) -> UnlockedWallet:
        folder = self._folder / name
        return UnlockedWallet(name, keys, SessionCounter(folder), Profile(folder))

    def _keys_of(self, secret: WalletSecret, public_key: bytes, path: Path) -> KeyTree:
        keys = KeyTree(seed_of(secret.entropy, secret.passphrase))
        derived = keys.account_key().public_key
        if derived != public_key:
            raise FileDamaged(f"{path} names key {public_key.hex()}, its words give {derived.hex()}")
        return keys

    def _names(self) -> tuple[str, ...]:
        if not self._folder.is_dir():
            return ()
        found = (entry.name for entry in self._folder.iterdir() if (entry / "keystore.json").is_file())
        return tuple(sorted(name for name in found if _NAME.fullmatch(name)))

    def _check_free(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise BadName(
                f"{name[:40]!r} cannot be a wallet's name",
                hint="1 to 32 of a-z, 0-9, - and _, starting with a letter or digit",
            )
        if (self._folder / name).exists():
            raise WalletExists(f"there is a wallet {name!r} already", hint="choose another name")
        if len(self._names()) >= MAX_WALLETS:
            raise WalletExists(f"there are {MAX_WALLETS} wallets already")

    @property
    def _default_file(self) -> Path:
        return self._folder / ".default.json"

    def _write_default(self, name: str) -> None:
        write_json(self._default_file, {"format": _DEFAULT_FORMAT, "version": 1, "name": name})

    def _lock(self) -> contextlib.AbstractContextManager[None]:
        return file_lock(self._folder / ".lock")
