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
├── ForkDetected           two sources show different signed headers for one height
│   └── LightClientAttack  both can be verified: validators signed two chains, and evidence says which
├── PrioritiesDiverge      two sources agree on the header, but not on whose turn it is to propose
├── NoWitnessAgrees        no witness shows the header that the primary shows
└── NoWitnessLeft          the last witness showed what does not hold
"""

from __future__ import annotations

from dllm_protocol.errors import DllmError, MalformedBytes, NetworkUnreachable, TimedOut, VerificationFailed
from dllm_protocol.light_attack import AttackKind, LightClientAttackEvidence
from dllm_protocol.verification.predicates import Rule


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
    """A header that must not be believed.

    Attributes:
        height: which one.
        rule: the rule that it breaks; None where the way to it was too long.
    """

    code = "E_HEADER"

    def __init__(self, message: str, *, hint: str = "", height: int = 0, rule: Rule | None = None) -> None:
        super().__init__(message, hint=hint)
        self.height = height
        self.rule = rule


class RootExpired(VerificationFailed):
    """Everything that is trusted is older than the trusting period."""

    code = "E_ROOT_EXPIRED"


class RootMismatch(VerificationFailed):
    """A trust root that the chain, or what is trusted already, contradicts."""

    code = "E_ROOT_MISMATCH"


class ForkDetected(VerificationFailed):
    """Two sources show different headers for one height; at least one is lying, or validators signed both."""

    code = "E_FORK"


class LightClientAttack(ForkDetected):
    """Two headers for one height, both signed so that a light client would believe them.

    Attributes:
        kind: how it was done, seen from the witness.
        height: of the primary's conflicting header.
        against_primary: for full nodes on the witness's side.
        against_witness: for full nodes on the primary's side; None where the primary would not say more.
    """

    code = "E_ATTACK"

    def __init__(
        self,
        message: str,
        *,
        kind: AttackKind,
        height: int,
        against_primary: LightClientAttackEvidence,
        against_witness: LightClientAttackEvidence | None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.height = height
        self.against_primary = against_primary
        self.against_witness = against_witness


class PrioritiesDiverge(VerificationFailed):
    """Two nodes show one header with different proposer priorities: one of them computes the rotation wrongly."""

    code = "E_PRIORITIES"


class NoWitnessAgrees(VerificationFailed):
    """No witness shows the header that the primary shows, so nobody vouches for it."""

    code = "E_NO_WITNESS"


class NoWitnessLeft(VerificationFailed):
    """Every witness showed what does not hold; the last ones are kept, because without any nobody would notice."""

    code = "E_WITNESSES"


class TrustStoreFailed(DllmError):
    """The trust store cannot be read or written: the disk is full, read-only or failing, or another process
    keeps it locked.
    """

    code = "E_TRUST_STORE"
