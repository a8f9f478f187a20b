"""Actions of owners on their providers."""

from __future__ import annotations

from dllm_protocol.encoding import (
    ADDRESS,
    NAME,
    OPTIONAL_HASH,
    PUBLIC_KEY,
    U32,
    UDLLM,
    ListOf,
    Nested,
    Record,
    Text,
    Unsigned,
    record,
    wire,
)
from dllm_protocol.model_manifest import MAX_LAYERS
from dllm_protocol.pricing import RowPrices
from dllm_protocol.voucher import SignedAck

ENDPOINT = Text(200, minimum=1)
REGION = Text(32)


@record
class RegisterProvider(Record):
    """Register a provider of the sender's. Its id follows from owner and operator.

    The operator's key may offer, beat and claim for the provider; it cannot touch the bond.
    """

    operator: bytes = wire(1, ADDRESS)
    service_key: bytes = wire(2, PUBLIC_KEY)
    """Ed25519: signs channel offers and window acks."""
    sealing_key: bytes = wire(3, PUBLIC_KEY)
    """X25519: what is sealed to the provider before a channel stands."""
    endpoints: tuple[str, ...] = wire(4, ListOf(ENDPOINT, 8, minimum=1))
    """Where it answers, best first, as `dllm_protocol.endpoints` reads it: ``ws://…``, ``wss://…``, ``relay+wss://…``."""
    region: str = wire(5, REGION)
    bond_udllm: int = wire(6, UDLLM)


@record
class UpdateProvider(Record):
    """Rotate keys or move: what is empty stays as it is."""

    provider: bytes = wire(1, ADDRESS)
    service_key: bytes = wire(2, OPTIONAL_HASH)
    sealing_key: bytes = wire(3, OPTIONAL_HASH)
    endpoints: tuple[str, ...] = wire(4, ListOf(ENDPOINT, 8))


@record
class BondProvider(Record):
    """Add to a provider's bond (anyone of the owner's side: owner only)."""

    provider: bytes = wire(1, ADDRESS)
    amount_udllm: int = wire(2, UDLLM)


@record
class UnbondProvider(Record):
    """Start taking bond back; it stays slashable until the unbonding time is over."""

    provider: bytes = wire(1, ADDRESS)
    amount_udllm: int = wire(2, UDLLM)


@record
class SetOffer(Record):
    """Offer layers [first, end) of a model; replaces the provider's offer for that model."""

    provider: bytes = wire(1, ADDRESS)
    model: str = wire(2, NAME)
    first_layer: int = wire(3, Unsigned(MAX_LAYERS))
    end_layer: int = wire(4, Unsigned(MAX_LAYERS))
    prices: RowPrices = wire(5, Nested(RowPrices))
    """For a row through all layers of the slice."""
    capacity_sessions: int = wire(6, U32)
    """How many sessions may be open on it at once."""


@record
class WithdrawOffer(Record):
    """Take the provider's offer for a model back."""

    provider: bytes = wire(1, ADDRESS)
    model: str = wire(2, NAME)


@record
class Heartbeat(Record):
    """Say that a provider is still there: its offers live on for another term."""

    provider: bytes = wire(1, ADDRESS)


@record
class ReportContradiction(Record):
    """Prove that a provider signed two different acks for one voucher; its bond is slashed."""

    first: SignedAck = wire(1, Nested(SignedAck))
    second: SignedAck = wire(2, Nested(SignedAck))
