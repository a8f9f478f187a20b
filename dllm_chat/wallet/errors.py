"""What the wallet refuses, each by name."""

from __future__ import annotations

from dllm_protocol.errors import MalformedBytes, NotFound, UsageRefused, WalletLocked


class NoPassword(WalletLocked):
    """A password is needed and no source for it was given."""

    code = "E_NO_PASSWORD"


class WrongPassword(WalletLocked):
    """The file is whole, and this password does not open it."""

    code = "E_PASSWORD"


class WalletIsLocked(WalletLocked):
    """The keys were wiped from memory; unlock again."""

    code = "E_LOCKED"


class WeakPassword(UsageRefused):
    """A password that a thief of the file would soon guess."""

    code = "E_WEAK_PASSWORD"


class BadMnemonic(UsageRefused):
    """Words that are not a BIP-39 mnemonic."""

    code = "E_MNEMONIC"


class FileDamaged(MalformedBytes):
    """A wallet file whose bytes are not those that were written."""

    code = "E_DAMAGED"


class UnknownVersion(UsageRefused):
    """A wallet file of a version that this program does not know."""

    code = "E_VERSION"


class NoSuchWallet(NotFound):
    """No wallet, account or recipient of that name."""

    code = "E_NO_WALLET"


class WalletExists(UsageRefused):
    """The name is taken."""

    code = "E_WALLET_EXISTS"


class BadName(UsageRefused):
    """A name or label that cannot be one."""

    code = "E_NAME"


class WrongChain(UsageRefused):
    """A play wallet belongs to one local chain and signs for no other."""

    code = "E_CHAIN"


class BeyondChatKey(UsageRefused):
    """The chat key may open, top up and close sessions, and nothing else."""

    code = "E_CHAT_KEY"


class KeyringUnusable(UsageRefused):
    """``keyring_backend = "os"`` was asked for, and this system's keyring does not work."""

    code = "E_KEYRING"
