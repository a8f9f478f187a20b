"""What a person keeps of an answer: everything needed to show, offline, who promised and did what [format].

A receipt is canonical bytes. Its body is signed with the session's key, which stands in the session's proved
record: no byte can change unnoticed, and nobody but the session's owner can make one. Proofs inside it lead to the
header of ``proof_height``; whether that header is part of the chain is the light node's to say (*anchored*), the
rest is checked without it (*consistent*).
"""

from __future__ import annotations

from dllm_protocol.encoding import (
    ADDRESS,
    HASH,
    NAME,
    SIGNATURE,
    U32,
    U64,
    UDLLM,
    ByteString,
    FormatVersion,
    ListOf,
    Nested,
    Optional,
    Record,
    Text,
    Unsigned,
    record,
    wire,
)
from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.signing import Signer, sign_tagged, verify_tagged
from dllm_protocol.voucher import CHAIN_ID, SignedAck, SignedVoucher

RECEIPT_VERSION = 1
BADGE_LOCAL, BADGE_NETWORK = 1, 2
MAX_RECEIPT_BYTES = 4 << 20


@record
class ProvedRecord(Record):
    """A state record with its proof against the app hash in the header above ``proof_height``."""

    key: bytes = wire(1, ByteString(1, 512))
    value: bytes = wire(2, ByteString(1, 1 << 20))
    proof: bytes = wire(3, ByteString(1, 1 << 16))
    """ICS-23 CommitmentProof."""


@record
class Served(Record):
    """A provider that served a part of the answer."""

    provider: bytes = wire(1, ADDRESS)
    first_layer: int = wire(2, U32)
    end_layer: int = wire(3, U32)


@record
class ReceiptBody(Record):
    """What happened."""

    version: int = wire(1, FormatVersion(RECEIPT_VERSION))
    chain_id: str = wire(2, CHAIN_ID)
    badge: int = wire(3, Unsigned(BADGE_NETWORK))
    model: str = wire(4, NAME)
    session: bytes = wire(5, HASH)
    asked_ms: int = wire(6, U64)
    """The client's clock when it asked, in ms since 1970 (its own word, proved by nothing)."""
    prompt_hash: bytes = wire(7, HASH)
    reply_hash: bytes = wire(8, HASH)
    prompt_tokens: int = wire(9, U32)
    completion_tokens: int = wire(10, U32)
    cost_udllm: int = wire(11, UDLLM)
    """What the vouchers signed for this answer come to for the client."""
    fees_udllm: int = wire(12, UDLLM)
    """Fees of the transactions that this answer caused."""
    served: tuple[Served, ...] = wire(13, ListOf(Nested(Served), 128, minimum=1))
    voucher_before: SignedVoucher | None = wire(14, Optional(SignedVoucher))
    """The session's last voucher before this answer."""
    voucher_after: SignedVoucher = wire(15, Nested(SignedVoucher))
    acks: tuple[SignedAck, ...] = wire(16, ListOf(Nested(SignedAck), 128))
    """Each paid leg's newest ack; a leg that failed may have an older one or none."""
    proof_height: int = wire(17, U64)
    """Records are proved at this height, against the app hash in header ``proof_height`` + 1."""
    header: bytes = wire(18, ByteString(1, 1 << 16))
    """That header, as protocol buffers of CometBFT v0.38."""
    records: tuple[ProvedRecord, ...] = wire(19, ListOf(Nested(ProvedRecord), 140, minimum=1))
    """Session, route, model and every provider that was paid."""
    transactions: tuple[bytes, ...] = wire(20, ListOf(HASH, 16))
    """Hashes of the transactions that this answer caused."""
    note: str = wire(21, Text(256))


@record
class Receipt(Record):
    """A body with the session key's signature."""

    body: ReceiptBody = wire(1, Nested(ReceiptBody))
    signature: bytes = wire(2, SIGNATURE)

    def signed_by(self, session_key: bytes) -> bool:
        """Whether the session's key signed exactly this body."""
        return verify_tagged(session_key, Tag.RECEIPT, self.body.encode(), self.signature)


def sign_receipt(signer: Signer, body: ReceiptBody) -> Receipt:
    """Sign with the session key."""
    return Receipt(body, sign_tagged(signer, Tag.RECEIPT, body.encode()))


def text_hash(text: str) -> bytes:
    """What a receipt says of a prompt or a reply (32 bytes)."""
    return tagged_hash(Tag.TEXT, text.encode())
