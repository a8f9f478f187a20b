"""What a provider's leg asks of whoever drives it, one order a message."""

from __future__ import annotations

from dataclasses import dataclass

from dllm_protocol.encoding import Record
from dllm_protocol.session.acceptance import Standing


@dataclass(frozen=True, slots=True)
class Claimed:
    """The client proved that the session is its own: answer with `ProviderLeg.ready`."""


@dataclass(frozen=True, slots=True)
class StoreVoucher:
    """Store ``standing`` durably, then send `ProviderLeg.acknowledge`: once for each of these, in their order."""

    standing: Standing


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """Decode, then send outputs and `ProviderLeg.done`; or `ProviderLeg.refuse`."""

    request: int
    first_position: int
    ids: list[int]
    kind: int
    top_k: int
    outputs: int
    quiet: bool = False
    """Whether `ProviderLeg.handed_on` is enough where the rows go to the next stage."""


@dataclass(frozen=True, slots=True)
class TakeRows:
    """Take hidden states from the previous stage and decode them; then as for `DecodeRows`."""

    request: int
    first_position: int
    rows: int
    kind: int
    top_k: int
    outputs: int
    label: bytes
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class ResendRows:
    """Send hidden states to the next stage once more, then `ProviderLeg.done`; or `ProviderLeg.refuse`."""

    request: int
    first_position: int
    rows: int


@dataclass(frozen=True, slots=True)
class StandBetween:
    """Link up with the next stage and take rows of the previous one; then `ProviderLeg.linked` or `unlinked`."""

    generation: int
    previous: bytes
    next: bytes
    form: int
    ring: bytes = b""
    """At the last stage: who may be told the likeliest token. At the first: who may tell. See `Neighbours.ring`."""


@dataclass(frozen=True, slots=True)
class TokenizeTexts:
    """Tokenise, then send `ProviderLeg.tokens`."""

    request: int
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SendVocabulary:
    """Send `ProviderLeg.vocabulary_part` from this offset."""

    offset: int


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Stop a request."""

    request: int


@dataclass(frozen=True, slots=True)
class Reply:
    """Send `ProviderLeg.reply`, sealed then and not before: frames open in the order in which they were sealed."""

    message: Record


@dataclass(frozen=True, slots=True)
class Farewell:
    """The client is leaving."""

    message: str


Order = (
    Claimed
    | StoreVoucher
    | DecodeRows
    | TakeRows
    | ResendRows
    | StandBetween
    | TokenizeTexts
    | SendVocabulary
    | CancelRequest
    | Reply
    | Farewell
)
