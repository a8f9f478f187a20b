"""A wallet whose keys are in memory: what dispatch, sessions and commands sign with."""

from __future__ import annotations

from types import TracebackType
from typing import NoReturn, Self

from dllm_chat.wallet.derivation import WorkerKey
from dllm_chat.wallet.errors import BadName, FileDamaged
from dllm_chat.wallet.keys import KeyTree, SigningKey
from dllm_chat.wallet.keystore import fingerprint_of
from dllm_chat.wallet.profile import MAX_ACCOUNTS, Account, Profile, SessionCounter, check_label
from dllm_protocol.transaction import Transaction, TransactionBody, sign_transaction


class OpenWallet:
    """Keys by purpose. Use it as a context manager, or `lock` it: every key handed out is wiped then."""

    def __init__(self, name: str, keys: KeyTree, sessions: SessionCounter) -> None:
        self.name = name
        self.keys = keys
        self.sessions = sessions
        self.fingerprint = fingerprint_of(keys.account_key().public_key)
        """4 bytes by which a person recognises the wallet."""

    def account_key(self, account: int = 0) -> SigningKey:
        """The key that owns the account's money."""
        return self.keys.account_key(account)

    def session_key(self, index: int, account: int = 0) -> SigningKey:
        """The key of a session that was opened before."""
        return self.keys.session_key(index, account)

    def next_session_key(self, account: int = 0) -> tuple[int, SigningKey]:
        """A session number that nobody had before, on disk already, and its key.

        Raises:
            WalletIsLocked: the keys were wiped; no number is spent then.
        """
        self.keys.account_key(account)
        index = self.sessions.take(account)
        return index, self.keys.session_key(index, account)

    def worker_key(self, kind: WorkerKey, worker: int = 0, account: int = 0) -> SigningKey:
        """One of a worker's keys."""
        return self.keys.worker_key(kind, worker, account)

    def check_chain(self, chain_id: str) -> None:
        """Raises WrongChain where this wallet may not sign for the chain; ordinary wallets sign for any."""

    def sign_transaction(self, body: TransactionBody, account: int = 0) -> Transaction:
        """Sign a body with the account's own key.

        Raises:
            WrongChain: the wallet belongs to another chain.
            WalletIsLocked: the keys were wiped.
        """
        self.check_chain(body.chain_id)
        return sign_transaction(self.account_key(account), body)

    @property
    def locked(self) -> bool:
        return self.keys.wiped

    def lock(self) -> None:
        """Wipe the seed and every key."""
        self.keys.wipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.fingerprint.hex()})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"an {type(self).__name__} is never copied or pickled")


class UnlockedWallet(OpenWallet):
    """A wallet from a keystore that its password opened."""

    def __init__(self, name: str, keys: KeyTree, sessions: SessionCounter, profile: Profile) -> None:
        super().__init__(name, keys, sessions)
        self._profile = profile

    def accounts(self) -> tuple[Account, ...]:
        """The accounts, ascending by index.

        Raises:
            FileDamaged: the profile lists a key that this seed does not give: somebody changed the file.
        """
        accounts = self._profile.accounts()
        for account in accounts:
            derived = self.account_key(account.index).public_key
            if derived != account.public_key:
                raise FileDamaged(
                    f"account {account.index} has key {account.public_key.hex()} in the profile, "
                    f"{derived.hex()} in the wallet",
                    hint="do not use the address shown while locked; remove profile.json and add accounts anew",
                )
        return accounts

    def add_account(self, label: str) -> Account:
        """Derive the next account and remember it.

        Raises:
            BadName: a label that cannot be one, or too many accounts.
        """
        index = self.accounts()[-1].index + 1
        if index >= MAX_ACCOUNTS:
            raise BadName(f"a wallet has at most {MAX_ACCOUNTS} accounts")
        account = Account(index, check_label(label), self.account_key(index).public_key)
        self._profile.put(account)
        return account
