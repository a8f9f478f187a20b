"""The chat key: opens, tops up and closes sessions up to a cap, while the wallet itself stays locked.

Its file is sealed with a random wrapping key, which the operating system's keyring holds, or, where there is
none, a second file (0600). The wallet's seed is in neither. Together with the chat key the file holds the
branch of the session keys, so that sessions opened with it are found again from the mnemonic. A thief of both
halves can spend what is left under the cap that the chain enforces (`GrantChatKey`), and no more.
"""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path
from typing import Any, Final

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from dllm_chat.wallet.derivation import HARDENED, Node
from dllm_chat.wallet.errors import BeyondChatKey, FileDamaged, NoPassword
from dllm_chat.wallet.json_file import hex_field, int_field, read_json, spell, write_json
from dllm_chat.wallet.keys import Secret, SigningKey
from dllm_chat.wallet.open_wallet import OpenWallet
from dllm_chat.wallet.profile import SessionCounter
from dllm_chat.wallet.wrapping_key import WrappingKeys
from dllm_protocol.actions import CloseSession, OpenSession, TopUpSession
from dllm_protocol.address import address_of
from dllm_protocol.transaction import Transaction, TransactionBody, sign_transaction
from dllm_protocol.units import MAX_SUPPLY_UDLLM

FORMAT = "dllm-chat-key"
VERSION = 1
ALLOWED_ACTIONS: Final = (OpenSession, TopUpSession, CloseSession)
_NONCE_BYTES = 24


class ChatKey:
    """A chat key in memory."""

    def __init__(
        self,
        key: SigningKey,
        branch: Node,
        account_public_key: bytes,
        cap_udllm: int,
        sessions: SessionCounter,
        account: int = 0,
    ) -> None:
        self._key = key
        self._branch = Secret(branch.key + branch.chain_code)
        self._session_keys: list[SigningKey] = []
        self._sessions = sessions
        self.account = account
        """Index of the account in its wallet."""
        self.account_address = address_of(account_public_key)
        """The account that granted it and pays (20 bytes)."""
        self.cap_udllm = cap_udllm
        """The cap of the grant; what is left of it stands on chain."""

    @property
    def public_key(self) -> bytes:
        """32 bytes."""
        return self._key.public_key

    def sign_transaction(self, body: TransactionBody) -> Transaction:
        """Sign a body for the account.

        Raises:
            BeyondChatKey: an action other than opening, topping up and closing sessions, or another sender.
        """
        for action in body.actions:
            if not isinstance(action, ALLOWED_ACTIONS):
                raise BeyondChatKey(
                    f"the chat key does not sign {type(action).__name__}", hint="unlock the wallet for that"
                )
        if body.account != self.account_address:
            raise BeyondChatKey(
                f"the chat key belongs to account {self.account_address.hex()}, "
                f"the transaction is {body.account.hex()}'s"
            )
        return sign_transaction(self._key, body)

    def session_key(self, index: int) -> SigningKey:
        """The same key as `OpenWallet.session_key` gives for this account."""
        raw = self._branch.reveal()
        key = SigningKey(Node(raw[:32], raw[32:]).child(index).key)
        self._session_keys.append(key)
        return key

    def next_session_key(self) -> tuple[int, SigningKey]:
        """A session number that nobody had before, on disk already, and its key."""
        self._branch.reveal()
        index = self._sessions.take(self.account)
        return index, self.session_key(index)

    def lock(self) -> None:
        """Wipe the key and every session key handed out."""
        self._key.wipe()
        self._branch.wipe()
        for key in self._session_keys:
            key.wipe()
        self._session_keys.clear()

    def __repr__(self) -> str:
        return f"ChatKey({self.public_key.hex()}, cap {self.cap_udllm} udllm)"


class ChatKeyStore:
    """The chat keys of one wallet, one an account, in the wallet's folder."""

    def __init__(self, folder: Path, wrapping_keys: WrappingKeys) -> None:
        self._folder = folder
        self._wrapping_keys = wrapping_keys

    def save(self, wallet: OpenWallet, cap_udllm: int, account: int = 0) -> bytes:
        """Seal the chat key of an open wallet; returns its public key, for `GrantChatKey`.

        Raises:
            KeyringUnusable: the OS keyring was asked for and does not work.
        """
        if not 0 < cap_udllm <= MAX_SUPPLY_UDLLM:
            raise BeyondChatKey(f"the cap is {cap_udllm} udllm; it must be 1 to {MAX_SUPPLY_UDLLM}")
        self.forget(account)
        key = wallet.keys.chat_key(account)
        branch = wallet.keys.session_branch(account)
        entry = f"chat-{key.public_key.hex()[:16]}-{secrets.token_hex(8)}"
        wrapping_key = secrets.token_bytes(32)
        backend = self._wrapping_keys.put(self._wrap_file(account), entry, wrapping_key)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        header: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "account": account,
            "account_public_key": wallet.account_key(account).public_key.hex(),
            "public_key": key.public_key.hex(),
            "cap_udllm": cap_udllm,
            "backend": backend,
            "entry": entry,
            "nonce": nonce.hex(),
        }
        plain = key.reveal_seed() + branch.key + branch.chain_code
        sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(plain, spell(header), nonce, wrapping_key)
        write_json(self._file(account), {**header, "ciphertext": sealed.hex()})
        return key.public_key

    def load(self, account: int = 0) -> ChatKey:
        """Open the chat key; no password is needed.

        Raises:
            NoPassword: none was saved, or the keyring no longer has its half.
            FileDamaged: bytes were changed.
        """
        try:
            content = read_json(self._file(account), FORMAT, VERSION)
        except FileNotFoundError:
            raise NoPassword(
                f"account {account} of this wallet has no chat key", hint="unlock the wallet, or grant one"
            ) from None
        header = {name: value for name, value in content.items() if name != "ciphertext"}
        if int_field(content, "account", 0, HARDENED - 1) != account:
            raise FileDamaged(f"the chat key is account {content['account']}'s, not account {account}'s")
        wrapping_key = self._wrapping_keys.get(
            str(content.get("backend")), self._wrap_file(account), str(content.get("entry"))
        )
        try:
            plain = crypto_aead_xchacha20poly1305_ietf_decrypt(
                hex_field(content, "ciphertext"),
                spell(header),
                hex_field(content, "nonce", _NONCE_BYTES),
                wrapping_key,
            )
        except CryptoError as error:
            raise FileDamaged("the chat key's two halves do not fit each other") from error
        if len(plain) != 96:
            raise FileDamaged(f"the chat key's file holds {len(plain)} bytes, not 96")
        return ChatKey(
            SigningKey(plain[:32]),
            Node(plain[32:64], plain[64:]),
            hex_field(content, "account_public_key", 32),
            int_field(content, "cap_udllm", 1, MAX_SUPPLY_UDLLM),
            SessionCounter(self._folder),
            account,
        )

    def forget(self, account: int = 0) -> None:
        """Remove the chat key and its wrapping key. The grant on chain stays until it is revoked there."""
        with contextlib.suppress(FileNotFoundError, FileDamaged):  # a damaged file is removed all the same
            content = read_json(self._file(account), FORMAT, VERSION)
            self._wrapping_keys.remove(
                str(content.get("backend")), self._wrap_file(account), str(content.get("entry"))
            )
        self._file(account).unlink(missing_ok=True)

    def _file(self, account: int) -> Path:
        return self._folder / f"chat_key-{account}.json"

    def _wrap_file(self, account: int) -> Path:
        return self._folder / f"chat_key-{account}.wrap.json"
