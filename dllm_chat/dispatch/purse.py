"""Who pays: a wallet's account, or the capped chat key that works while the wallet is locked."""

from __future__ import annotations

from dllm_chat.wallet.chat_key import ChatKey
from dllm_chat.wallet.open_wallet import OpenWallet
from dllm_protocol.address import address_of
from dllm_protocol.errors import WalletLocked
from dllm_protocol.signing import Signer
from dllm_protocol.transaction import Transaction, TransactionBody


class WalletPurse:
    """An account of an open wallet."""

    def __init__(self, wallet: OpenWallet, account: int = 0) -> None:
        self.wallet = wallet
        self._index = account
        key = wallet.account_key(account)
        self.account = key.address
        self.public_key = key.public_key

    def sign(self, body: TransactionBody) -> Transaction:
        """See `light_node.sending.TransactionSigner`."""
        return self.wallet.sign_transaction(body, self._index)

    def session_key(self, index: int) -> Signer:
        """See `dispatch.sessions.Purse`."""
        return self.wallet.session_key(index, self._index)

    def next_session_key(self) -> tuple[int, Signer]:
        """See `dispatch.sessions.Purse`."""
        return self.wallet.next_session_key(self._index)


class ChatKeyPurse:
    """An account through its chat key: opens, tops up and closes sessions, nothing else."""

    def __init__(self, chat_key: ChatKey) -> None:
        self._chat_key = chat_key
        self.account = chat_key.account_address
        self.public_key = chat_key.public_key

    def sign(self, body: TransactionBody) -> Transaction:
        """See `light_node.sending.TransactionSigner`."""
        return self._chat_key.sign_transaction(body)

    def session_key(self, index: int) -> Signer:
        """See `dispatch.sessions.Purse`."""
        return self._chat_key.session_key(index)

    def next_session_key(self) -> tuple[int, Signer]:
        """See `dispatch.sessions.Purse`."""
        return self._chat_key.next_session_key()


NOBODY = bytes(32)
"""The public key of a watched purse without a wallet."""


class WatchedPurse:
    """An account that is looked at and never signed for."""

    def __init__(self, public_key: bytes) -> None:
        self.public_key = public_key
        self.account = address_of(public_key)

    def sign(self, body: TransactionBody) -> Transaction:
        """Refuses."""
        raise self._locked()

    def session_key(self, index: int) -> Signer:
        """Refuses."""
        raise self._locked()

    def next_session_key(self) -> tuple[int, Signer]:
        """Refuses."""
        raise self._locked()

    def _locked(self) -> WalletLocked:
        return WalletLocked("this needs the wallet unlocked", hint="give --password-file or --password-fd")
