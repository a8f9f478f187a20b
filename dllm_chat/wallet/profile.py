"""What a wallet knows without its password: its accounts with labels, and the next free session numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_chat.paths import file_lock
from dllm_chat.wallet.derivation import HARDENED
from dllm_chat.wallet.errors import BadName, FileDamaged, NoSuchWallet
from dllm_chat.wallet.json_file import hex_field, int_field, read_json, write_json
from dllm_protocol.address import address_of, encode_address

FORMAT = "dllm-wallet-profile"
COUNTER_FORMAT = "dllm-session-counter"
VERSION = 1
MAX_ACCOUNTS = 1000
MAX_LABEL_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Account:
    """One account of a wallet."""

    index: int
    label: str
    public_key: bytes

    @property
    def address(self) -> bytes:
        """20 bytes."""
        return address_of(self.public_key)

    def address_text(self, prefix: str) -> str:
        """Bech32, as people see it on the chain that uses ``prefix``."""
        return encode_address(prefix, self.address)


def check_label(label: str) -> str:
    """The label, if it is one: printable text of 1 to 64 characters.

    Raises:
        BadName: anything else.
    """
    if not 1 <= len(label) <= MAX_LABEL_CHARACTERS or not label.isprintable():
        raise BadName(f"a label is 1 to {MAX_LABEL_CHARACTERS} printable characters, not {label[:80]!r}")
    return label


class Profile:
    """The accounts of one wallet, in ``profile.json``. Public; compared with the keys at every unlock."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "profile.json"
        self._lock = folder / "profile.lock"

    def accounts(self) -> tuple[Account, ...]:
        """Ascending by index; account 0 is always there."""
        content = read_json(self._path, FORMAT, VERSION)
        entries = content.get("accounts")
        if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_ACCOUNTS:
            raise FileDamaged(f"{self._path} lists no accounts")
        accounts = tuple(_account_of(entry) for entry in entries)
        indices = [account.index for account in accounts]
        if indices != sorted(set(indices)):
            raise FileDamaged(f"{self._path} lists accounts out of order or twice")
        return accounts

    def account(self, index: int) -> Account:
        """One account. Raises NoSuchWallet where the wallet does not have it."""
        for account in self.accounts():
            if account.index == index:
                return account
        raise NoSuchWallet(f"this wallet has no account {index}", hint="add it, which needs the password")

    def put(self, account: Account) -> None:
        """Add an account, or give it another label."""
        check_label(account.label)
        with file_lock(self._lock):
            known = {entry.index: entry for entry in self.accounts()} if self._path.exists() else {}
            known[account.index] = account
            if len(known) > MAX_ACCOUNTS:
                raise BadName(f"a wallet has at most {MAX_ACCOUNTS} accounts")
            entries = [
                {"index": entry.index, "label": entry.label, "public_key": entry.public_key.hex()}
                for _, entry in sorted(known.items())
            ]
            write_json(self._path, {"format": FORMAT, "version": VERSION, "accounts": entries})


class SessionCounter:
    """Hands out each session number of each account once, on disk before it is used.

    Under a lock, so that two terminals never get the same number; a crash loses a number, never repeats one.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "sessions.json"
        self._lock = folder / "sessions.lock"

    def take(self, account: int = 0) -> int:
        """The next free number."""
        with file_lock(self._lock):
            numbers = self._read()
            number = numbers.get(account, 0)
            self._write({**numbers, account: number + 1})
            return number

    def peek(self, account: int = 0) -> int:
        """What `take` would give; all lower numbers may have been used."""
        return self._read().get(account, 0)

    def raise_to(self, number: int, account: int = 0) -> None:
        """Never hand out a number below ``number``: the chain knows sessions of a restored wallet."""
        with file_lock(self._lock):
            numbers = self._read()
            if number > numbers.get(account, 0):
                self._write({**numbers, account: number})

    def _read(self) -> dict[int, int]:
        try:
            content = read_json(self._path, COUNTER_FORMAT, VERSION)
        except FileNotFoundError:
            return {}
        found = content.get("next")
        if not isinstance(found, dict):
            raise FileDamaged(f"{self._path} counts nothing")
        return {int(name): int_field(found, name, 0, HARDENED) for name in found if name.isdecimal()}

    def _write(self, numbers: dict[int, int]) -> None:
        if max(numbers.values()) > HARDENED:
            raise FileDamaged(f"{self._path} has no session numbers left below {HARDENED}")
        content = {str(account): number for account, number in numbers.items()}
        write_json(self._path, {"format": COUNTER_FORMAT, "version": VERSION, "next": content})


def _account_of(entry: Any) -> Account:
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
        raise FileDamaged("an account of the profile has no label")
    index = int_field(entry, "index", 0, HARDENED - 1)
    return Account(index, entry["label"], hex_field(entry, "public_key", 32))
