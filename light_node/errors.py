"""What a light node fails with.

NetworkUnreachable
├── SourceUnreachable      no connection, or it broke
├── SourceRefusal          the node answered with an error of its own
│   └── HeightUnavailable  it does not have that height (yet, or any more)
└── NotYetProvable         the header that would prove it does not exist yet
TimedOut
└── SourceTimedOut
MalformedBytes
└── SourceMalformed        an answer that is not what the call answers
VerificationFailed
├── AnswerRefused          an answer about something else than was asked
├── HeaderRefused          a header that the rules do not allow to believe
├── RootExpired            nothing stored is young enough to build upon
├── RootMismatch           the trust root is not on this chain, or does not link to what is trusted
└── ForkDetected           two sources show different signed headers for one height
"""

from __future__ import annotations

from dllm_protocol.errors import DllmError, MalformedBytes, NetworkUnreachable, TimedOut, VerificationFailed


class SourceUnreachable(NetworkUnreachable):
    """The node cannot be reached, or the connection broke."""

    code = "E_SOURCE_UNREACHABLE"


class SourceRefusal(NetworkUnreachable):
    """The node answered a call with an error."""

    code = "E_SOURCE_REFUSAL"


class HeightUnavailable(SourceRefusal):
    """The node does not have that height: not yet, or pruned."""

    code = "E_HEIGHT_UNAVAILABLE"


class NotYetProvable(NetworkUnreachable):
    """The state exists, but the header that proves it does not yet."""

    code = "E_NOT_YET_PROVABLE"


class SourceTimedOut(TimedOut):
    """The node did not answer in the time allowed."""

    code = "E_SOURCE_TIMEOUT"


class SourceMalformed(MalformedBytes):
    """The node answered with something that is not an answer to the call."""

    code = "E_SOURCE_MALFORMED"


class AnswerRefused(VerificationFailed):
    """The node answered about something else than was asked."""

    code = "E_ANSWER"


class HeaderRefused(VerificationFailed):
    """A header that must not be believed."""

    code = "E_HEADER"


class RootExpired(VerificationFailed):
    """Everything that is trusted is older than the trusting period."""

    code = "E_ROOT_EXPIRED"


class RootMismatch(VerificationFailed):
    """A trust root that the chain, or what is trusted already, contradicts."""

    code = "E_ROOT_MISMATCH"


class ForkDetected(VerificationFailed):
    """Two sources show different headers for one height; at least one is lying, or validators signed both."""

    code = "E_FORK"


class TrustStoreFailed(DllmError):
    """The trust store cannot be read or written: the disk is full, read-only or failing, or another process
    keeps it locked.
    """

    code = "E_TRUST_STORE"
