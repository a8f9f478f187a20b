"""Transactions [format]: who asks, in which order, for what, and who signed it."""

from __future__ import annotations

from collections.abc import Sequence

from dllm_protocol.actions import ACTION
from dllm_protocol.address import address_of
from dllm_protocol.encoding import (
    ADDRESS,
    PUBLIC_KEY,
    SIGNATURE,
    U64,
    UDLLM,
    FormatVersion,
    ListOf,
    Nested,
    Record,
    Text,
    record,
    wire,
)
from dllm_protocol.hashing import Tag, sha256
from dllm_protocol.protobuf import read_uvarint
from dllm_protocol.signing import Signer, sign_tagged, verify_tagged
from dllm_protocol.voucher import CHAIN_ID

TRANSACTION_VERSION = 1
MAX_ACTIONS = 64
MAX_MEMO_BYTES = 256
MAX_TRANSACTION_BYTES = 128 * 1024
_BODY_LENGTH_AT = 1
"""The body comes first, after its key of one byte."""


@record
class TransactionBody(Record):
    """What is signed."""

    version: int = wire(1, FormatVersion(TRANSACTION_VERSION, minimum=1))
    chain_id: str = wire(2, CHAIN_ID)
    account: bytes = wire(3, ADDRESS)
    """Sender: pays the fee and stands behind every action."""
    public_key: bytes = wire(4, PUBLIC_KEY)
    """The account's own key, or the chat key that it granted."""
    sequence: int = wire(5, U64)
    """How many transactions of the account came before."""
    fee_udllm: int = wire(6, UDLLM)
    timeout_height: int = wire(7, U64)
    """Last height at which the transaction may stand; 0 = no limit."""
    memo: str = wire(8, Text(MAX_MEMO_BYTES))
    actions: tuple[Record, ...] = wire(9, ListOf(ACTION, MAX_ACTIONS, minimum=1))
    """All succeed or none does."""


@record
class Transaction(Record):
    """A signed transaction: the bytes that stand in a block."""

    body: TransactionBody = wire(1, Nested(TransactionBody))
    signature: bytes = wire(2, SIGNATURE)

    @property
    def signature_fits(self) -> bool:
        """Whether the public key named in the body signed exactly this body."""
        return verify_tagged(self.body.public_key, Tag.TRANSACTION, self.body.encode(), self.signature)

    @property
    def by_chat_key(self) -> bool:
        """Whether another key than the account's own signed."""
        return address_of(self.body.public_key) != self.body.account


def signature_fits_in(raw: bytes, transaction: Transaction) -> bool:
    """`signature_fits` over the bytes that `transaction` was decoded from: they are canonical, so that the body need
    not be written anew.
    """
    length, start = read_uvarint(raw, _BODY_LENGTH_AT)
    signed = raw[start : start + length]
    return verify_tagged(transaction.body.public_key, Tag.TRANSACTION, signed, transaction.signature)


def sign_transaction(signer: Signer, body: TransactionBody) -> Transaction:
    """Sign a body with the key that it names."""
    return Transaction(body, sign_tagged(signer, Tag.TRANSACTION, body.encode()))


def transaction_hash(raw: bytes) -> bytes:
    """Identity of a transaction on chain: plain SHA-256 of its bytes, as CometBFT indexes it (32 bytes)."""
    return sha256(raw)


def make_body(
    chain_id: str,
    account: bytes,
    public_key: bytes,
    sequence: int,
    actions: Sequence[Record],
    *,
    fee_udllm: int,
    timeout_height: int = 0,
    memo: str = "",
) -> TransactionBody:
    """A body of the current version."""
    return TransactionBody(
        TRANSACTION_VERSION,
        chain_id,
        account,
        public_key,
        sequence,
        fee_udllm,
        timeout_height,
        memo,
        tuple(actions),
    )
