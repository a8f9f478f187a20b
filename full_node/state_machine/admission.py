"""Whether a transaction may stand in a block at all: everything that is asked before its actions.

The rules are asked in a fixed order, so that every node gives one answer. Only the last one, the fee, changes
the state.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from dllm_protocol.actions import CloseSession, OpenSession, TopUpSession
from dllm_protocol.errors import MalformedBytes, UnknownField
from dllm_protocol.params import BLOCK_WEIGHT_MAX, fee_of_weight, weight_of
from dllm_protocol.refusals import (
    BadSignature,
    ChatKeyNotAllowed,
    Expired,
    FeeTooLow,
    MalformedTransaction,
    SequenceGap,
    TooLarge,
    UnknownFieldInTransaction,
    WrongChain,
    WrongSequence,
)
from dllm_protocol.transaction import MAX_TRANSACTION_BYTES, Transaction, signature_fits_in
from full_node.state_machine.accounts import changes, view
from full_node.state_machine.books.view import offers_in_force
from full_node.state_machine.context import Scope
from full_node.state_machine.state import Overlay, StateReader

CHAT_KEY_ACTIONS = (OpenSession, TopUpSession, CloseSession)
MAX_REMEMBERED = 1 << 14
MAX_REMEMBERED_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Arrival:
    """A transaction as it was decoded, with what does not depend on the state."""

    transaction: Transaction
    size_bytes: int
    by_chat_key: bool
    """Whether another key than the account's own is named; whether that key is granted depends on the state."""


class Decoder:
    """Decodes transactions and verifies their signatures, each once.

    What was seen by CheckTx is remembered for the block, bounded by number and bytes; the oldest is forgotten.
    """

    def __init__(
        self, *, max_remembered: int = MAX_REMEMBERED, max_bytes: int = MAX_REMEMBERED_BYTES
    ) -> None:
        self._max_remembered = max_remembered
        self._max_bytes = max_bytes
        self._arrivals: OrderedDict[bytes, Arrival] = OrderedDict()
        self._signed: set[bytes] = set()
        self._bytes = 0

    def decode(self, raw: bytes) -> Arrival:
        """The transaction that the bytes stand for.

        Raises:
            TooLarge, UnknownFieldInTransaction, MalformedTransaction
        """
        known = self._arrivals.get(raw)
        if known is not None:
            return known
        if len(raw) > MAX_TRANSACTION_BYTES:
            raise TooLarge(
                f"the transaction has {len(raw)} bytes, at most {MAX_TRANSACTION_BYTES} are allowed"
            )
        try:
            transaction = Transaction.decode(raw)
        except UnknownField as error:
            raise UnknownFieldInTransaction(error.message, hint="update the node or the wallet") from error
        except MalformedBytes as error:
            raise MalformedTransaction(error.message) from error
        arrival = Arrival(transaction, len(raw), transaction.by_chat_key)
        self._remember(raw, arrival)
        return arrival

    def check_signature(self, raw: bytes, arrival: Arrival) -> None:
        """Raises BadSignature."""
        if raw in self._signed:
            return
        if not signature_fits_in(raw, arrival.transaction):
            raise BadSignature(
                f"the key {arrival.transaction.body.public_key.hex()} did not sign this transaction"
            )
        if raw in self._arrivals:
            self._signed.add(raw)

    def _remember(self, raw: bytes, arrival: Arrival) -> None:
        self._arrivals[raw] = arrival
        self._bytes += len(raw)
        while len(self._arrivals) > self._max_remembered or self._bytes > self._max_bytes:
            oldest, _ = self._arrivals.popitem(last=False)
            self._signed.discard(oldest)
            self._bytes -= len(oldest)


def check_against_chain(
    decoder: Decoder, raw: bytes, arrival: Arrival, state: StateReader, scope: Scope
) -> int:
    """Whether the sender may ask this here and now; the transaction's weight.

    Raises:
        WrongChain, ChatKeyNotAllowed, BadSignature, Expired, WrongSequence, SequenceGap, TooLarge, FeeTooLow: in
            this order.
    """
    body = arrival.transaction.body
    if body.chain_id != scope.block.chain_id:
        raise WrongChain(f"signed for chain {body.chain_id!r}, this is {scope.block.chain_id!r}")
    if arrival.by_chat_key:
        _check_chat_key(arrival.transaction, state)
    decoder.check_signature(raw, arrival)
    if body.timeout_height and body.timeout_height < scope.block.height:
        raise Expired(f"valid until height {body.timeout_height}, the block is {scope.block.height}")
    expected = view.account(state, body.account).sequence
    if body.sequence < expected:
        raise WrongSequence(f"sequence {body.sequence} was used, the next one is {expected}")
    if body.sequence > expected:
        raise SequenceGap(f"sequence {body.sequence} came before {expected}, which is the next one")
    weighs = weight(arrival, state, scope)
    if weighs > BLOCK_WEIGHT_MAX:
        raise TooLarge(f"the transaction weighs {weighs}, a whole block holds {BLOCK_WEIGHT_MAX}")
    least_udllm = fee_of_weight(scope.params.fees, weighs)
    if body.fee_udllm < least_udllm:
        raise FeeTooLow(
            f"the fee is {body.fee_udllm} udllm, at least {least_udllm} are needed",
            hint="the fee of actions on a model's offers grows with its offer book: work it out anew",
        )
    return weighs


def charge_fee(arrival: Arrival, state: Overlay) -> None:
    """Take the fee and use the sequence up. Raises ChatKeyCapExceeded or InsufficientFunds, before any change."""
    body = arrival.transaction.body
    changes.pay_fee(state, body.account, body.fee_udllm, by_chat_key=arrival.by_chat_key)


def weight(arrival: Arrival, state: StateReader, scope: Scope) -> int:
    """What the transaction costs every node, in units of the fee schedule; the same in the whole of a block."""
    return weight_of(
        scope.params.fees, arrival.transaction, arrival.size_bytes, partial(offers_in_force, state)
    )


def _check_chat_key(transaction: Transaction, state: StateReader) -> None:
    """Raises ChatKeyNotAllowed unless the key is granted and may do all of this."""
    body = transaction.body
    granted = view.chat_key(state, body.account)
    if granted is None or granted.public_key != body.public_key:
        expected = granted.public_key.hex() if granted else "none"
        raise ChatKeyNotAllowed(
            f"the key {body.public_key.hex()} is not account {body.account.hex()}'s; its chat key is {expected}"
        )
    for action in body.actions:
        if not isinstance(action, CHAT_KEY_ACTIONS):
            raise ChatKeyNotAllowed(
                f"a chat key opens, tops up and closes sessions; {type(action).__name__} is the account's own",
                hint="unlock the wallet for this",
            )
