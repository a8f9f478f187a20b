"""Small parts that the wallet's tests share."""

from __future__ import annotations

from pathlib import Path

from dllm_chat.wallet.keystore import KdfCost
from dllm_chat.wallet.manager import WalletManager

CHEAP = KdfCost(opslimit=1, memlimit_bytes=8192)
MNEMONIC = "legal winner thank year wave sausage worth useful legal winner thank yellow"
PASSWORD = "copper lantern dusty violin"


class Typed:
    """A person who types these passwords, one a question."""

    interactive = False

    def __init__(self, *passwords: str) -> None:
        self.passwords = list(passwords)
        self.prompts: list[str] = []

    def read(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return self.passwords.pop(0) if len(self.passwords) > 1 else self.passwords[0]


class TypedTwice(Typed):
    """The same at a terminal, where new passwords are asked twice."""

    interactive = True


class DictKeyring:
    """A keyring that works, in memory."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str, /) -> str | None:
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str, /) -> None:
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str, /) -> None:
        del self.entries[service, username]


def manager_in(folder: Path) -> WalletManager:
    """A manager whose passwords cost little to check."""
    return WalletManager(folder / "wallets", cost=CHEAP)
