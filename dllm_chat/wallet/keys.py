"""Signing keys in memory, and the tree that they grow on."""

from __future__ import annotations

from typing import NoReturn

from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from dllm_chat.wallet.derivation import (
    KeyPath,
    Node,
    WorkerKey,
    account_path,
    chat_path,
    derive,
    session_branch,
    session_path,
    worker_path,
)
from dllm_chat.wallet.errors import WalletIsLocked
from dllm_protocol.address import address_of


class Secret:
    """Bytes that show themselves to nobody and can be wiped.

    Wiping clears our one buffer. Python and libsodium's bindings copy bytes as they work, and those copies
    cannot be reached; `dllm_chat.wallet.hardening` keeps other processes from reading them.
    """

    __slots__ = ("_bytes",)

    def __init__(self, data: bytes) -> None:
        self._bytes: bytearray | None = bytearray(data)

    def reveal(self) -> bytes:
        """The bytes.

        Raises:
            WalletIsLocked: they were wiped.
        """
        if self._bytes is None:
            raise WalletIsLocked("the wallet is locked", hint="unlock it again")
        return bytes(self._bytes)

    def wipe(self) -> None:
        """Overwrite and forget; a second time does nothing."""
        if self._bytes is not None:
            self._bytes[:] = bytes(len(self._bytes))
            self._bytes = None

    @property
    def wiped(self) -> bool:
        return self._bytes is None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is never copied or pickled")


class SigningKey:
    """An Ed25519 key that signs. Satisfies `dllm_protocol.signing.Signer`; repr shows the public key only."""

    __slots__ = ("_secret", "public_key")

    def __init__(self, seed: bytes) -> None:
        """``seed``: 32 bytes."""
        self.public_key: bytes
        self.public_key, secret_key = crypto_sign_seed_keypair(seed)
        self._secret = Secret(secret_key)

    @property
    def address(self) -> bytes:
        """20 bytes."""
        return address_of(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes.

        Raises:
            WalletIsLocked: the key was wiped.
        """
        return crypto_sign(message, self._secret.reveal())[:64]

    def reveal_seed(self) -> bytes:
        """The 32-byte seed, for sealing it into a file of its own."""
        return self._secret.reveal()[:32]

    def wipe(self) -> None:
        """Forget the private half; signing is refused from now on."""
        self._secret.wipe()

    def __repr__(self) -> str:
        return f"SigningKey({self.public_key.hex()})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a SigningKey is never copied or pickled")


class KeyTree:
    """Every key that grows from one seed. Keys handed out are wiped together with the tree."""

    __slots__ = ("_keys", "_seed")

    def __init__(self, seed: bytes) -> None:
        """``seed``: 16 to 64 bytes, BIP-39's or random."""
        self._seed = Secret(seed)
        self._keys: dict[KeyPath, SigningKey] = {}

    def account_key(self, account: int = 0) -> SigningKey:
        """The key that owns the account's money."""
        return self.key(account_path(account))

    def session_key(self, index: int, account: int = 0) -> SigningKey:
        """The key of the account's session number ``index``."""
        return self.key(session_path(account, index))

    def chat_key(self, account: int = 0) -> SigningKey:
        """The key that `GrantChatKey` puts under a cap."""
        return self.key(chat_path(account))

    def worker_key(self, kind: WorkerKey, worker: int = 0, account: int = 0) -> SigningKey:
        """One of a worker's keys; of the sealing key only the 32-byte seed is used (X25519)."""
        return self.key(worker_path(account, worker, kind))

    def session_branch(self, account: int = 0) -> Node:
        """The node that the account's session keys grow on, for the chat key's file."""
        return session_branch(self._seed.reveal(), account)

    def key(self, path: KeyPath) -> SigningKey:
        """The key at a path, the same object each time.

        Raises:
            WalletIsLocked: the tree was wiped.
        """
        seed = self._seed.reveal()
        if path not in self._keys:
            self._keys[path] = SigningKey(derive(seed, path))
        return self._keys[path]

    @property
    def wiped(self) -> bool:
        return self._seed.wiped

    def wipe(self) -> None:
        """Forget the seed and every key that was handed out."""
        self._seed.wipe()
        for key in self._keys.values():
            key.wipe()
        self._keys.clear()

    def __repr__(self) -> str:
        return "KeyTree(locked)" if self.wiped else "KeyTree(hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a KeyTree is never copied or pickled")
