"""Actions of a session's life."""

from __future__ import annotations

from dllm_protocol.encoding import (
    ADDRESS,
    HASH,
    NAME,
    PUBLIC_KEY,
    UDLLM,
    ListOf,
    Nested,
    Optional,
    Record,
    Unsigned,
    record,
    wire,
)
from dllm_protocol.pricing import RowPrices
from dllm_protocol.voucher import MAX_LEGS, SignedAck, SignedVoucher

MAX_EXCLUSIONS = 16
PERMILLE = Unsigned(1000)


@record
class OpenSession(Record):
    """Lock a deposit and have the chain assign a route over the offer book in force."""

    model: str = wire(1, NAME)
    session_key: bytes = wire(2, PUBLIC_KEY)
    """Signs the vouchers; never used for another session."""
    max_prices: RowPrices = wire(3, Nested(RowPrices))
    """For the whole model; a stage may ask its layers' part."""
    exclusions: tuple[bytes, ...] = wire(4, ListOf(ADDRESS, MAX_EXCLUSIONS))
    """Providers that the client will not use; ascending."""
    deposit_udllm: int = wire(5, UDLLM)


@record
class TopUpSession(Record):
    """Add to the deposit of an open session."""

    session: bytes = wire(1, HASH)
    amount_udllm: int = wire(2, UDLLM)


@record
class ClaimVoucher(Record):
    """Have a voucher paid out while its session stays open. Anyone may send it."""

    voucher: SignedVoucher = wire(1, Nested(SignedVoucher))


@record
class Rating(Record):
    """How well a provider did, from the client who paid it."""

    provider: bytes = wire(1, ADDRESS)
    score_permille: int = wire(2, PERMILLE)


@record
class CloseSession(Record):
    """Settle and end a session.

    With the final voucher (`voucher.FINAL_N`) and an ack of it by every provider of the route, the session settles at
    once. Otherwise it is *closing* until the grace is over: whoever holds more may claim it; then anyone closes it
    for good with a second CloseSession.
    """

    session: bytes = wire(1, HASH)
    voucher: SignedVoucher | None = wire(2, Optional(SignedVoucher))
    acks: tuple[SignedAck, ...] = wire(3, ListOf(Nested(SignedAck), MAX_LEGS))
    ratings: tuple[Rating, ...] = wire(4, ListOf(Nested(Rating), MAX_LEGS))
    """Only counted from the session's account; ascending by provider."""
