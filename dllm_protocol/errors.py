"""The declared error tree: everything that one room may raise into another.

    DllmError                      code, exit_code, message, hint
    ├── UsageRefused               the request itself makes no sense                      (exit 2)
    ├── NetworkUnreachable         nobody answered, retrying later may help               (exit 3)
    ├── TimedOut                   an answer did not come in the time allowed             (exit 4)
    ├── MalformedBytes             bytes that are not the one canonical form              (exit 8)
    │   └── UnknownField           a field number that this version does not know
    ├── TransactionRefused         the chain will not take a transaction                  (exit 5)
    │                              (subclasses, with ABCI codes, in `dllm_protocol.refusals`)
    ├── ChannelRefused             a peer on a sealed channel broke the session protocol  (exit 3)
    ├── NotFound                   proved absent, or no such file                         (exit 6)
    ├── WalletLocked               a password or key is needed and was not given          (exit 7)
    ├── VerificationFailed         somebody claimed what does not hold                    (exit 8)
    └── Declined                   the person said no                                     (exit 9)

Rooms derive their own leaves from these; nothing else crosses from one package into another.
"""

from __future__ import annotations

from typing import ClassVar

MESSAGE_CHARACTERS_MAX = 2000


def _fit(words: str) -> str:
    """Words that can be written anywhere: of bounded length, and without halves of surrogate pairs."""
    if len(words) > MESSAGE_CHARACTERS_MAX:
        words = words[: MESSAGE_CHARACTERS_MAX - 1] + "…"
    return words if words.isascii() else words.encode("utf-8", "backslashreplace").decode()


class DllmError(Exception):
    """Root of the tree.

    Attributes:
        code: stable machine-readable name, printed in JSON envelopes (``E_…``).
        exit_code: what a command-line program exits with.
        message: one sentence that names what disagreed, both values where there are two; cut at
            `MESSAGE_CHARACTERS_MAX`, because a stranger may have chosen what it quotes.
        hint: what to do about it; may be empty.
    """

    code: ClassVar[str] = "E_INTERNAL"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = _fit(message)
        self.hint = _fit(hint)
        super().__init__(self.message)


class UsageRefused(DllmError):
    """The request makes no sense as it stands: a bad amount, an unknown option, a broken configuration."""

    code = "E_USAGE"
    exit_code = 2


class NetworkUnreachable(DllmError):
    """Nobody answered at the address asked; trying again may help."""

    code = "E_NETWORK"
    exit_code = 3


class TimedOut(DllmError):
    """An answer did not come in the time allowed."""

    code = "E_TIMEOUT"
    exit_code = 4


class MalformedBytes(DllmError):
    """Bytes that are not the one canonical form of what they claim to be."""

    code = "E_MALFORMED"
    exit_code = 8


class UnknownField(MalformedBytes):
    """A field number that this version of the format does not know."""

    code = "E_UNKNOWN_FIELD"


class TransactionRefused(DllmError):
    """The chain will not take a transaction, or took it and it failed.

    Attributes:
        abci_code: the number that stands in the transaction's result (never 0).
    """

    code = "E_TX"
    exit_code = 5
    abci_code: ClassVar[int] = 1


class ChannelRefused(DllmError):
    """A peer on a sealed channel broke the session protocol, or refused ours."""

    code = "E_CHANNEL"
    exit_code = 3


class NotFound(DllmError):
    """Proved absent on chain, or no such thing here."""

    code = "E_NOT_FOUND"
    exit_code = 6


class WalletLocked(DllmError):
    """A password or key is needed and was not given, or was wrong."""

    code = "E_LOCKED"
    exit_code = 7


class VerificationFailed(DllmError):
    """Somebody claimed what does not hold: a proof, a header, a receipt, a route."""

    code = "E_VERIFY"
    exit_code = 8


class Declined(DllmError):
    """The person said no."""

    code = "E_DECLINED"
    exit_code = 9
