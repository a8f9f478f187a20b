"""Where a wrapping key is kept: the operating system's keyring, or a file where there is none.

Headless machines have no keyring, and `keyring` then answers with a backend that fails on every call; so
``auto`` writes, reads back, and falls back to the file. Importing `keyring` takes 40 ms: only when needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from dllm_chat.wallet.errors import FileDamaged, KeyringUnusable, NoPassword
from dllm_chat.wallet.json_file import hex_field, read_json, write_json

SERVICE = "dllm"
FORMAT = "dllm-wrapping-key"
Choice = Literal["auto", "os", "file"]


class Keyring(Protocol):
    """The part of `keyring` that we use."""

    def get_password(self, service: str, username: str, /) -> str | None: ...

    def set_password(self, service: str, username: str, password: str, /) -> None: ...

    def delete_password(self, service: str, username: str, /) -> None: ...


class WrappingKeys:
    """Keeps 32-byte keys, by entry, in the keyring or in a file."""

    def __init__(self, choice: Choice = "auto", keyring: Keyring | None = None) -> None:
        """``keyring``: the one to use, the system's by default."""
        self._choice = choice
        self._keyring = keyring

    def put(self, file: Path, entry: str, key: bytes) -> Literal["os", "file"]:
        """Keep a key; says where it went.

        Raises:
            KeyringUnusable: ``os`` was chosen and the keyring does not keep what it is given.
        """
        if self._choice != "file":
            problem = self._put_in_keyring(entry, key)
            if not problem:
                return "os"
            if self._choice == "os":
                raise KeyringUnusable(
                    f"the system's keyring does not work: {problem}",
                    hint='set keyring_backend = "file", or unlock the keyring',
                )
        write_json(file, {"format": FORMAT, "version": 1, "entry": entry, "key": key.hex()})
        return "file"

    def get(self, backend: str, file: Path, entry: str) -> bytes:
        """The key (32 bytes).

        Raises:
            NoPassword: it is gone, or the keyring stays shut.
            FileDamaged: what is there is not it.
        """
        if backend == "file":
            return self._read_file(file, entry)
        if backend != "os":
            raise FileDamaged(f"the wrapping key is in {backend[:20]!r}, which is neither 'os' nor 'file'")
        text: str | None
        try:
            text = self._system().get_password(SERVICE, entry)
        except Exception as error:  # noqa: BLE001 - a keyring is a third party's plug-in with errors of its own
            raise NoPassword(
                f"the system's keyring stays shut: {type(error).__name__}",
                hint="unlock it, or unlock the wallet",
            ) from None
        if text is None:
            raise NoPassword(
                "the system's keyring no longer has the chat key's other half",
                hint="unlock the wallet and make the chat key anew",
            )
        return _key_of(text)

    def remove(self, backend: str, file: Path, entry: str) -> None:
        """Forget a key; one that cannot be reached any more opens nothing, its other half being removed."""
        if backend == "os":
            try:
                self._system().delete_password(SERVICE, entry)
            except Exception:  # noqa: BLE001 - as above; there is nothing left to undo
                return
        file.unlink(missing_ok=True)

    def _put_in_keyring(self, entry: str, key: bytes) -> str:
        """Empty when the keyring kept the key, else what went wrong (a type's name, never a secret)."""
        try:
            keyring = self._system()
            keyring.set_password(SERVICE, entry, key.hex())
            kept = keyring.get_password(SERVICE, entry) == key.hex()
        except Exception as error:  # noqa: BLE001 - a keyring is a third party's plug-in with errors of its own
            return type(error).__name__
        return "" if kept else "it does not give back what it was given"

    def _read_file(self, file: Path, entry: str) -> bytes:
        try:
            content = read_json(file, FORMAT, 1)
        except FileNotFoundError:
            raise NoPassword(
                f"{file} is gone, the chat key's other half",
                hint="unlock the wallet and make the chat key anew",
            ) from None
        if content.get("entry") != entry:
            raise FileDamaged(f"{file} belongs to another chat key")
        return hex_field(content, "key", 32)

    def _system(self) -> Keyring:
        if self._keyring is None:
            import keyring

            self._keyring = keyring.get_keyring()
        return self._keyring


def _key_of(text: str) -> bytes:
    key = b""
    if len(text) == 64 and all(character in "0123456789abcdef" for character in text):
        key = bytes.fromhex(text)
    if len(key) != 32:
        raise FileDamaged("what the system's keyring holds for the chat key is not a key")
    return key
