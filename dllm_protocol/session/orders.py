"""What a provider's leg asks of whoever drives it, one order a message."""

from __future__ import annotations

from dataclasses import dataclass

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
    """Send this frame."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Farewell:
    """The client is leaving."""

    message: str


Order = (
    Claimed | StoreVoucher | DecodeRows | TokenizeTexts | SendVocabulary | CancelRequest | Reply | Farewell
)
