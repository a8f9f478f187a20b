"""What is sent is sent once, whatever the node says."""

from __future__ import annotations

from typing import cast

import pytest

from dllm_protocol import state_keys
from dllm_protocol.actions import OpenSession, Transfer
from dllm_protocol.address import address_of, encode_address
from dllm_protocol.params import NETWORK_PARAMS, least_fee
from dllm_protocol.pricing import RowPrices
from dllm_protocol.records import Account, Chain, OfferBookHead
from dllm_protocol.refusals import FeeTooLow, InsufficientFunds, WrongSequence
from dllm_protocol.results import ExecTxResult
from dllm_protocol.signing import SeedSigner
from dllm_protocol.transaction import Transaction, TransactionBody, sign_transaction, transaction_hash
from light_node.outcomes import Impossible, Included, Outcome
from light_node.queries import ProvedReads
from light_node.sending import Sender

PAYMENT = (Transfer(b"\2" * 20, 5),)


class Payer:
    """An account with its own key."""

    def __init__(self) -> None:
        self._key = SeedSigner(b"\1" * 32)
        self.public_key = self._key.public_key
        self.account = address_of(self.public_key)

    def sign(self, body: TransactionBody) -> Transaction:
        return sign_transaction(self._key, body)


class Clock:
    def monotonic_s(self) -> float:
        return 0.0


READ_AT = 7


class LyingNode:
    """Takes the first transaction into a block and says that its sequence was used before."""

    clock = Clock()

    def __init__(self, refusal: Exception) -> None:
        self.refusal = refusal
        self.included: list[bytes] = []
        self.refused = 0

    @property
    def client(self) -> LyingNode:
        return self

    async def provable_height(self) -> int:
        return READ_AT

    async def account(self, address: bytes, height: int) -> Account:
        assert height == READ_AT
        return Account(10**9, len(self.included))

    async def record(self, kind: type, key: bytes) -> object:
        assert key == state_keys.PARAMS
        return NETWORK_PARAMS

    async def send(self, raw: bytes) -> bytes:
        assert Transaction.decode(raw).body.sequence == len(self.included)
        if not self.included or not isinstance(self.refusal, WrongSequence):
            self.refused += 1
            if isinstance(self.refusal, WrongSequence):
                self.included.append(raw)
            raise self.refusal
        self.included.append(raw)
        return transaction_hash(raw)

    async def wait_for(self, raw: bytes, *, since_height: int, timeout_s: float) -> Outcome:
        if raw in self.included:
            return Included(transaction_hash(raw), 8, 0, ExecTxResult())
        return Impossible(transaction_hash(raw), "used by another")


def sender(node: LyingNode) -> Sender:
    made = Sender("test-00000000", cast(ProvedReads, node))
    made._outcomes = node  # type: ignore[assignment]  # says what it wants
    return made


async def test_a_node_that_denies_what_it_took_gets_no_second_payment() -> None:
    node = LyingNode(WrongSequence("sequence 0 was used, the next one is 1"))
    sent = await sender(node).send(Payer(), PAYMENT)
    assert node.included == [raw for raw in node.included if transaction_hash(raw) == sent.tx_hash]
    assert len(node.included) == 1


async def test_another_refusal_of_the_first_copy_is_told_and_not_tried_again() -> None:
    node = LyingNode(FeeTooLow("the fee is 1"))
    with pytest.raises(FeeTooLow):
        await sender(node).send(Payer(), PAYMENT)
    assert node.refused == 1


class EmptyNode(LyingNode):
    """Has never heard of the account."""

    def __init__(self, chain: Chain | None) -> None:
        super().__init__(WrongSequence("unused"))
        self.chain = chain

    async def account(self, address: bytes, height: int) -> None:  # type: ignore[override]  # there is none
        assert height == READ_AT

    async def record(self, kind: type, key: bytes) -> object:
        return self.chain if key == state_keys.CHAIN else NETWORK_PARAMS


@pytest.mark.parametrize("chain", [Chain("test-00000000", 1, "tdllm"), None])
async def test_an_account_that_nobody_paid_yet_is_named_as_it_is_paid(chain: Chain | None) -> None:
    with pytest.raises(InsufficientFunds) as refused:
        await sender(EmptyNode(chain)).send(Payer(), PAYMENT)
    address = encode_address("tdllm", Payer().account) if chain else Payer().account.hex()
    assert refused.value.message == f"the account {address} does not exist on this chain yet"
    assert refused.value.hint.endswith(f"dllm wallet send {address} AMOUNT")


# --- fees of what is weighed by an offer book


class NodeWithBook(LyingNode):
    """Takes everything; its model has a book of so many offers."""

    def __init__(self, offers: int | None) -> None:
        super().__init__(WrongSequence("unused"))
        self.offers = offers
        self.books_read = 0

    async def record(self, kind: type, key: bytes) -> object:
        if key == state_keys.PARAMS:
            return NETWORK_PARAMS
        assert key == state_keys.latest_offer_book("guide-1")
        self.books_read += 1
        return (
            None
            if self.offers is None
            else OfferBookHead("guide-1", 3, b"h" * 32, self.offers, 0, 2, b"h" * 32, self.offers)
        )

    async def send(self, raw: bytes) -> bytes:
        self.included.append(raw)
        return transaction_hash(raw)


OPENING = (OpenSession("guide-1", b"k" * 32, RowPrices(1, 1, 1, 1), (), 1_000),)


def least(raw: bytes, offers: int) -> int:
    return least_fee(NETWORK_PARAMS.fees, Transaction.decode(raw), len(raw), lambda _: offers)


@pytest.mark.parametrize("offers", [None, 0, 1, 1_000, 65_536])
async def test_the_fee_of_an_opening_covers_the_book_and_one_that_has_grown(offers: int | None) -> None:
    node = NodeWithBook(offers)
    sent = await sender(node).send(Payer(), OPENING)
    (raw,) = node.included
    now = offers or 0
    assert sent.fee_udllm == Transaction.decode(raw).body.fee_udllm
    assert sent.fee_udllm >= least(raw, now + now // 4 + 16) > least(raw, now)
    assert await sender(node).fee_of(Payer(), OPENING) == sent.fee_udllm


async def test_a_payment_asks_for_no_book() -> None:
    node = NodeWithBook(1_000)
    sent = await sender(node).send(Payer(), PAYMENT)
    assert node.books_read == 0
    assert sent.fee_udllm == least(node.included[0], 0)
