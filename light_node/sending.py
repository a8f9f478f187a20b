"""Sending transactions and knowing what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dllm_protocol import state_keys
from dllm_protocol.address import encode_address
from dllm_protocol.encoding import Record
from dllm_protocol.errors import NetworkUnreachable, NotFound, TimedOut, TransactionRefused
from dllm_protocol.params import OffersOf, Params, least_fee, weighed_models
from dllm_protocol.records import Chain, OfferBookHead
from dllm_protocol.refusals import InsufficientFunds, WrongSequence, refusal_from_code
from dllm_protocol.transaction import Transaction, TransactionBody, make_body, transaction_hash
from light_node.outcomes import Impossible, Included, Outcomes, Unknown
from light_node.queries import ProvedReads

TIMEOUT_BLOCKS = 50
SEQUENCE_TRIES = 12
SEQUENCE_PAUSE_S = 0.15
OUTCOME_TIMEOUT_S = 30.0
_FEE_ROUNDS = 4
"""The fee's own bytes count towards it: it stands still after a few rounds."""
BOOK_GROWTH_OFFERS = 16
BOOK_GROWTH_SHARE = 4
"""A fee covers a book that grows by so many offers, and by a quarter, before the transaction stands in a block."""
_LARGE = 1 << 28
"""A sequence and a height with as many bytes as they will have for long."""
RESEND_AFTER_S = 3.0
"""A node that was killed has forgotten what waited for a block."""


class OutcomeUnknown(TimedOut):
    """Whether the transaction stands in a block cannot be proved now."""

    code = "E_OUTCOME_UNKNOWN"


class TransactionImpossible(TransactionRefused):
    """It is proved that the transaction never will stand in a block."""

    code = "E_TX_IMPOSSIBLE"


class TransactionSigner(Protocol):
    """Whoever signs for an account: a wallet, its chat key, a worker's operator."""

    @property
    def account(self) -> bytes:
        """Sender's address, 20 bytes."""
        ...

    @property
    def public_key(self) -> bytes:
        """The key that signs."""
        ...

    def sign(self, body: TransactionBody) -> Transaction:
        """Sign a body that names `public_key`."""
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction that stands in a block and succeeded, both proved."""

    tx_hash: bytes
    height: int
    fee_udllm: int
    data: bytes
    """Result data, e.g. a session id."""


class Sender:
    """Sends for one chain."""

    def __init__(self, chain_id: str, reads: ProvedReads, params: Params | None = None) -> None:
        """Prepare.

        Args:
            params: the chain's parameters where they are known, from its genesis; else they are read when needed.
        """
        self._chain_id = chain_id
        self._reads = reads
        self._outcomes = Outcomes(reads.client, reads)
        self._params = params

    async def params(self) -> Params:
        """The chain's parameters, proved once."""
        if self._params is None:
            self._params = await self._reads.record(Params, state_keys.PARAMS)
            if self._params is None:
                raise NotFound("the chain has no parameters", hint="it is not a DLLM chain")
        return self._params

    async def fee_of(self, signer: TransactionSigner, actions: Sequence[Record], memo: str = "") -> int:
        """A fee that a transaction with these actions is taken for, in udllm: the least one, with room for an offer
        book that grows meanwhile where an action is weighed by one.
        """
        params = await self.params()
        books = {
            model: grown(await self._offers_in(model))
            for model in sorted(weighed_models(params.fees, actions))
        }
        return fee_of(params, self._chain_id, signer, actions, memo, offers_of=lambda model: books[model])

    async def _offers_in(self, model_name: str) -> int:
        """How many offers and further holders the newest books of a model have, proved."""
        head = await self._reads.record(OfferBookHead, state_keys.latest_offer_book(model_name))
        return 0 if head is None else head.listed

    async def send(
        self,
        signer: TransactionSigner,
        actions: Sequence[Record],
        *,
        memo: str = "",
        timeout_s: float = OUTCOME_TIMEOUT_S,
    ) -> Sent:
        """Sign, send, and wait for the proof that it succeeded.

        Two terminals on one account may take the same sequence: the later one tries again with the next.

        Raises:
            TransactionRefused: the chain's reason, by its own class.
            TransactionImpossible, OutcomeUnknown
        """
        last: TransactionRefused | None = None
        for _ in range(SEQUENCE_TRIES):
            fee_udllm = await self.fee_of(signer, actions, memo)
            # What becomes of the sequence is searched from the very height at which it was read.
            read_at = await self._reads.provable_height()
            account = await self._reads.account(signer.account, read_at)
            if account is None:
                address = await self._shown(signer.account)
                raise InsufficientFunds(
                    f"the account {address} does not exist on this chain yet",
                    hint=f"have somebody send it some DLLM first: dllm wallet send {address} AMOUNT",
                )
            body = _body(
                self._chain_id, signer, account.sequence, actions, fee_udllm, read_at + TIMEOUT_BLOCKS, memo
            )
            raw = signer.sign(body).encode()
            try:
                return await self._deliver(raw, fee_udllm, read_at, timeout_s)
            except TransactionImpossible as error:  # proved: this copy never counts
                last = error
                await asyncio.sleep(SEQUENCE_PAUSE_S)
        raise last or TransactionImpossible("the account's sequence never stood still")

    async def _shown(self, account: bytes) -> str:
        """An account as people pay it: the chain's record, proved, says what its addresses begin with."""
        chain = await self._reads.record(Chain, state_keys.CHAIN)
        return encode_address(chain.address_prefix, account) if chain else account.hex()

    async def _deliver(self, raw: bytes, fee_udllm: int, since_height: int, timeout_s: float) -> Sent:
        """Hand a transaction in until it is proved what became of it; again where a node may have lost it.

        Only a refusal of the first copy means that none was ever taken: a later one may be refused because an
        earlier one, whose answer was lost with the connection, stands in a block already. And that a sequence was
        used is believed when it is proved, never on the node's word: one that took the copy and says so to get a
        second one with the next sequence would have both.
        """
        clock = self._reads.client.clock
        deadline = clock.monotonic_s() + timeout_s
        may_be_taken = False
        while True:
            try:
                await self._outcomes.send(raw)
            except (NetworkUnreachable, TimedOut):
                pass  # it may have arrived all the same: what is proved decides
            except TransactionRefused as refusal:
                if not may_be_taken and not isinstance(refusal, WrongSequence):
                    raise
            may_be_taken = True
            left_s = deadline - clock.monotonic_s()
            outcome = await self._outcomes.wait_for(
                raw, since_height=since_height, timeout_s=min(left_s, RESEND_AFTER_S)
            )
            if not isinstance(outcome, Unknown):
                return _sent(outcome, fee_udllm)
            if clock.monotonic_s() >= deadline:
                raise OutcomeUnknown(
                    f"transaction {transaction_hash(raw).hex()}: {outcome.reason}", hint=outcome.hint
                )


def grown(offers: int) -> int:
    """So many offers a book may have when a transaction stands in a block, if it has ``offers`` now."""
    return offers + offers // BOOK_GROWTH_SHARE + BOOK_GROWTH_OFFERS


def fee_of(
    params: Params,
    chain_id: str,
    signer: TransactionSigner,
    actions: Sequence[Record],
    memo: str = "",
    *,
    offers_of: OffersOf,
) -> int:
    """The least fee of a transaction with these actions, in udllm, whatever its sequence and timeout.

    Args:
        offers_of: how many offers a model's book has; see `dllm_protocol.params.weight_of`.
    """
    fee_udllm = 0
    for _ in range(_FEE_ROUNDS):
        body = _body(chain_id, signer, _LARGE, actions, fee_udllm, _LARGE, memo)
        probe = Transaction(body, bytes(64))
        needed = least_fee(params.fees, probe, len(probe.encode()), offers_of)
        if needed <= fee_udllm:
            break
        fee_udllm = needed
    return fee_udllm


def _body(
    chain_id: str,
    signer: TransactionSigner,
    sequence: int,
    actions: Sequence[Record],
    fee_udllm: int,
    timeout_height: int,
    memo: str,
) -> TransactionBody:
    return make_body(
        chain_id,
        signer.account,
        signer.public_key,
        sequence,
        actions,
        fee_udllm=fee_udllm,
        timeout_height=timeout_height,
        memo=memo,
    )


def _sent(outcome: Included | Impossible, fee_udllm: int) -> Sent:
    if isinstance(outcome, Impossible):
        raise TransactionImpossible(outcome.reason)
    if not outcome.succeeded:
        raise refusal_from_code(
            outcome.result.code, outcome.result.log or f"it failed in block {outcome.height}"
        )
    return Sent(outcome.tx_hash, outcome.height, fee_udllm, outcome.result.data)
