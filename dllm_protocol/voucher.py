"""Promises of money and of work that travel beside the words [format].

A *voucher* is the client's: signed by the session key, it says what each leg is owed so far. What a voucher once gave
a leg no other voucher takes away: each leg is paid the most that any of them says. A *window ack* is the provider's
answer: signed by its service key, it says which voucher, which transcript and which outputs it stands by. Two acks of
one provider for one ``n`` that differ are proof of misbehaviour.

A provider takes vouchers in ascending ``n`` only. So the voucher of the highest number there can be, `FINAL_N`, is the
last: whoever acknowledged it holds none that comes after it, and none that gives its leg more.
"""

from __future__ import annotations

from dllm_protocol.encoding import (
    ADDRESS,
    HASH,
    SIGNATURE,
    U64,
    UDLLM,
    ListOf,
    Nested,
    Record,
    Text,
    Unsigned,
    record,
    wire,
)
from dllm_protocol.encoding import PPM as SHARE
from dllm_protocol.hashing import Tag
from dllm_protocol.pricing import RowCounts
from dllm_protocol.signing import Signer, sign_tagged, verify_tagged

ROLE_STAGE, ROLE_STANDBY, ROLE_RELAY, ROLE_COORDINATOR, ROLE_DATA, ROLE_AUDIT = 1, 2, 3, 4, 5, 6
CHAIN_ID = Text(50, minimum=1)
WHOLE_SHARE_PPM = 1_000_000
MAX_LEGS = 128
FINAL_N = (1 << 64) - 1
"""Number of the voucher that ends a session by agreement."""


@record
class Payee(Record):
    """Somebody who is paid a share of a leg."""

    owner: bytes = wire(1, ADDRESS)
    role: int = wire(2, Unsigned(ROLE_AUDIT, minimum=1))
    """One of the ROLE_ constants."""
    share_ppm: int = wire(3, SHARE)
    """Part of the leg's payment, in millionths; the shares of a leg add up to a million."""


@record
class VoucherLeg(Record):
    """What one provider's part of the session comes to so far."""

    provider: bytes = wire(1, ADDRESS)
    payees: tuple[Payee, ...] = wire(2, ListOf(Nested(Payee), 8, minimum=1))
    rows: RowCounts = wire(3, Nested(RowCounts))
    cumulative_udllm: int = wire(4, UDLLM)
    """`cost_of_rows` at the route's prices; checked by whoever takes the voucher and by the chain."""


@record
class Voucher(Record):
    """What the client owes, in total since the session opened."""

    chain_id: str = wire(1, CHAIN_ID)
    session: bytes = wire(2, HASH)
    route_hash: bytes = wire(3, HASH)
    n: int = wire(4, U64)
    """Counts up from 1; `FINAL_N` ends the session."""
    legs: tuple[VoucherLeg, ...] = wire(5, ListOf(Nested(VoucherLeg), MAX_LEGS, minimum=1))
    """Ascending by provider."""
    transcript: bytes = wire(6, HASH)
    """Chain over the rows that the client has asked for when it signs; see `dllm_protocol.session.transcript`."""

    @property
    def payments_udllm(self) -> int:
        """Sum over the legs."""
        return sum(leg.cumulative_udllm for leg in self.legs)


@record
class SignedVoucher(Record):
    """A voucher with the session key's signature."""

    voucher: Voucher = wire(1, Nested(Voucher))
    signature: bytes = wire(2, SIGNATURE)

    def signed_by(self, session_key: bytes) -> bool:
        """Whether the session's key signed exactly this voucher."""
        return verify_tagged(session_key, Tag.VOUCHER, self.voucher.encode(), self.signature)


@record
class WindowAck(Record):
    """What a provider stands by after voucher ``n``."""

    chain_id: str = wire(1, CHAIN_ID)
    session: bytes = wire(2, HASH)
    provider: bytes = wire(3, ADDRESS)
    n: int = wire(4, U64)
    transcript: bytes = wire(5, HASH)
    """The voucher's transcript, recomputed by the provider."""
    outputs: bytes = wire(6, HASH)
    """Chain over everything that the provider delivered before voucher ``n``."""
    cumulative_udllm: int = wire(7, UDLLM)
    """Its leg's payment in voucher ``n``."""


@record
class SignedAck(Record):
    """A window ack with the provider's service key's signature."""

    ack: WindowAck = wire(1, Nested(WindowAck))
    signature: bytes = wire(2, SIGNATURE)

    def signed_by(self, service_key: bytes) -> bool:
        """Whether the provider's key signed exactly this ack."""
        return verify_tagged(service_key, Tag.WINDOW_ACK, self.ack.encode(), self.signature)


def sign_voucher(signer: Signer, voucher: Voucher) -> SignedVoucher:
    """Sign with the session key."""
    return SignedVoucher(voucher, sign_tagged(signer, Tag.VOUCHER, voucher.encode()))


def sign_ack(signer: Signer, ack: WindowAck) -> SignedAck:
    """Sign with the provider's service key."""
    return SignedAck(ack, sign_tagged(signer, Tag.WINDOW_ACK, ack.encode()))


def contradict(first: WindowAck, second: WindowAck) -> bool:
    """Whether two acks of one provider cannot both be honest: same session and ``n``, different content."""
    return (
        (first.chain_id, first.session, first.provider, first.n)
        == (second.chain_id, second.session, second.provider, second.n)
    ) and first != second
