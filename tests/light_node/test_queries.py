"""Proved reads: every lie about a value, a key, a height or a list is refused with both values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dllm_protocol import records, state_keys
from dllm_protocol.errors import DllmError, NotFound, VerificationFailed
from dllm_protocol.holder_book import HolderBook, HolderEntry, holders_hash
from dllm_protocol.ics23 import ProofInvalid
from dllm_protocol.offer_book import BookEntry, BookRefused, OfferBook, book_hash
from dllm_protocol.pricing import RowPrices
from light_node.answers import QueryAnswer
from light_node.errors import AnswerRefused, HeightUnavailable, NotYetProvable, SourceRefusal
from light_node.queries import ProvedReads
from tests.light_node.conftest import MakeClient
from tests.light_node.signed_chain import ChainSource, SignedChain

ALICE, BOB = b"\xa1" * 20, b"\xb0" * 20
MODEL = "guide"
Twist = Callable[[QueryAnswer], QueryAnswer]


def _book(epoch: int = 3, offers: int = 3) -> OfferBook:
    entries = tuple(
        BookEntry(bytes([number]) * 20, ALICE, 0, 4, RowPrices(1, 1, 1, 1), 2, 500_000)
        for number in range(1, offers + 1)
    )
    return OfferBook(MODEL, epoch, entries)


def _holders(holders: int = 4) -> HolderBook:
    entries = (HolderEntry(bytes([n]) * 20, ALICE, 500 * n, 4, 0, 4, 1, 1) for n in range(1, holders + 1))
    return HolderBook(MODEL, 3, tuple(entries))


@pytest.fixture
def chain() -> SignedChain:
    """A chain whose state has accounts and an offer book."""
    made = SignedChain(("a", "b", "c"))
    made.grow(2)
    book = _book()
    holders = _holders()
    head = records.OfferBookHead(MODEL, 3, book_hash(book), 3, 0, 2, holders_hash(holders), 4)
    made.add(
        changes={
            state_keys.account(ALICE): records.Account(5_000_000, 1).encode(),
            state_keys.account(BOB): records.Account(7, 0).encode(),
            state_keys.latest_offer_book(MODEL): head.encode(),
            state_keys.offer_list(MODEL, 3): book.encode(),
            state_keys.holder_list(MODEL, 3): holders.encode(),
        }
    )
    made.grow(1)
    made.add(changes={state_keys.account(ALICE): records.Account(4_000_000, 2).encode()})
    made.grow(2)
    return made


class QueryLiar(ChainSource):
    """Twists every answer about the state."""

    def __init__(self, chain: SignedChain, twist: Twist) -> None:
        super().__init__(chain, "liar")
        self.twist = twist

    async def abci_query(self, path: str, data: bytes, height: int, *, prove: bool) -> QueryAnswer:
        return self.twist(await super().abci_query(path, data, height, prove=prove))


async def test_a_present_value_is_proved(make_client: MakeClient) -> None:
    reads = ProvedReads(make_client())
    assert await reads.account(ALICE) == records.Account(4_000_000, 2)
    assert await reads.account(ALICE, 4) == records.Account(5_000_000, 1)
    found = await reads.read(state_keys.account(ALICE))
    assert (found.height, found.header.height) == (6, 7)


async def test_absence_is_proved(make_client: MakeClient) -> None:
    reads = ProvedReads(make_client())
    assert await reads.account(b"\xcc" * 20) is None
    assert await reads.account(ALICE, 2) is None
    assert await reads.provider(ALICE) is None
    assert await reads.models() == ()
    assert await reads.session(bytes(32)) is None
    assert await reads.route(bytes(32)) is None
    assert await reads.reputation(ALICE, MODEL) is None
    assert await reads.model(MODEL) is None
    assert await reads.community_pool() is None


async def test_a_wrong_value_is_refused(make_client: MakeClient, chain: SignedChain) -> None:
    rich = records.Account(10**12, 2).encode()
    liar = QueryLiar(chain, lambda answer: replace(answer, value=rich))
    with pytest.raises(ProofInvalid):
        await ProvedReads(make_client(liar)).account(ALICE)


async def test_another_key_is_refused(make_client: MakeClient, chain: SignedChain) -> None:
    class KeyLiar(ChainSource):
        async def abci_query(self, path: str, data: bytes, height: int, *, prove: bool) -> QueryAnswer:
            return await super().abci_query(path, state_keys.account(ALICE), height, prove=prove)

    reads = ProvedReads(make_client(KeyLiar(chain)))
    with pytest.raises(AnswerRefused) as caught:
        await reads.account(BOB)
    assert BOB.hex() in caught.value.message
    assert ALICE.hex() in caught.value.message


async def test_another_key_under_the_asked_name_is_refused(
    make_client: MakeClient, chain: SignedChain
) -> None:
    class KeyLiar(ChainSource):
        async def abci_query(self, path: str, data: bytes, height: int, *, prove: bool) -> QueryAnswer:
            answer = await super().abci_query(path, state_keys.account(ALICE), height, prove=prove)
            return replace(answer, key=data)

    with pytest.raises(ProofInvalid):
        await ProvedReads(make_client(KeyLiar(chain))).account(BOB)


async def test_an_old_height_is_refused(make_client: MakeClient, chain: SignedChain) -> None:
    class OldLiar(ChainSource):
        relabel = False

        async def abci_query(self, path: str, data: bytes, height: int, *, prove: bool) -> QueryAnswer:
            answer = await super().abci_query(path, data, 4, prove=prove)
            return replace(answer, height=height) if self.relabel else answer

    liar = OldLiar(chain)
    reads = ProvedReads(make_client(liar))
    with pytest.raises(AnswerRefused, match="asked for the state at height 6, answered for 4"):
        await reads.account(ALICE)
    liar.relabel = True
    with pytest.raises(ProofInvalid, match="the proof leads to root"):
        await reads.account(ALICE)


async def test_absence_claimed_for_a_present_key_is_refused(
    make_client: MakeClient, chain: SignedChain
) -> None:
    class Denier(ChainSource):
        async def abci_query(self, path: str, data: bytes, height: int, *, prove: bool) -> QueryAnswer:
            absent = await super().abci_query(path, state_keys.account(b"\xcc" * 20), height, prove=prove)
            return replace(absent, key=data)

    with pytest.raises(ProofInvalid):
        await ProvedReads(make_client(Denier(chain))).account(ALICE)


@pytest.mark.parametrize(
    ("twist", "error"),
    [
        (lambda answer: replace(answer, proof=b""), AnswerRefused),
        (lambda answer: replace(answer, value=b""), ProofInvalid),
        (lambda answer: replace(answer, proof=answer.proof[:-1]), DllmError),
        (lambda answer: replace(answer, code=5, log="no"), SourceRefusal),
    ],
)
async def test_incomplete_answers_are_refused(
    make_client: MakeClient, chain: SignedChain, twist: Twist, error: type[DllmError]
) -> None:
    with pytest.raises(error):
        await ProvedReads(make_client(QueryLiar(chain, twist))).account(ALICE)


async def test_a_flipped_bit_anywhere_in_a_proof_is_refused(
    make_client: MakeClient, chain: SignedChain
) -> None:
    honest = await ChainSource(chain).abci_query("/store", state_keys.account(ALICE), 6, prove=True)
    await make_client().sync()
    for position in range(len(honest.proof)):

        def flip(answer: QueryAnswer, at: int = position) -> QueryAnswer:
            changed = bytearray(answer.proof)
            changed[at] ^= 1
            return replace(answer, proof=bytes(changed))

        with pytest.raises(DllmError):
            await ProvedReads(make_client(QueryLiar(chain, flip))).account(ALICE, 6)


async def test_the_offer_book_is_held_against_its_proved_hash(make_client: MakeClient) -> None:
    reads = ProvedReads(make_client())
    assert await reads.offer_book(MODEL) == _book()
    with pytest.raises(NotFound, match="epoch 9"):
        await reads.offer_book(MODEL, 9)
    with pytest.raises(SourceRefusal, match="does not serve offer book guide@3"):
        await _reads_without_lists(make_client).offer_book(MODEL)
    with pytest.raises(NotFound, match="unheard-of has no offer book"):
        await reads.offer_book("unheard-of")


def _reads_without_lists(make_client: MakeClient) -> ProvedReads:
    honest = make_client().primary

    class Forgetful(ChainSource):
        async def abci_query(self, path: str, data: bytes, height: int, *, prove: bool) -> QueryAnswer:
            answer = await super().abci_query(path, data, height, prove=prove)
            return answer if prove else replace(answer, value=b"")

    assert isinstance(honest, ChainSource)
    return ProvedReads(make_client(Forgetful(honest.chain)))


@pytest.mark.parametrize("served", [_book(offers=2), _book(offers=4), _book(epoch=2), _book(offers=0)])
async def test_a_shortened_offer_list_is_refused(
    make_client: MakeClient, chain: SignedChain, served: OfferBook
) -> None:
    class ListLiar(ChainSource):
        async def abci_query(self, path: str, data: bytes, height: int, *, prove: bool) -> QueryAnswer:
            answer = await super().abci_query(path, data, height, prove=prove)
            return answer if prove else replace(answer, value=served.encode())

    with pytest.raises(BookRefused) as caught:
        await ProvedReads(make_client(ListLiar(chain))).offer_book(MODEL)
    assert isinstance(caught.value, VerificationFailed)
    assert book_hash(_book()).hex()[:16] in caught.value.message


async def test_the_holder_book_is_held_against_its_proved_hash(make_client: MakeClient) -> None:
    reads = ProvedReads(make_client())
    assert await reads.holder_book(MODEL) == (_holders(), holders_hash(_holders()))
    with pytest.raises(NotFound, match="epoch 9"):
        await reads.holder_book(MODEL, 9)
    with pytest.raises(SourceRefusal, match="does not serve holder book guide@3"):
        await _reads_without_lists(make_client).holder_book(MODEL)


@pytest.mark.parametrize("served", [_holders(3), _holders(5), _holders(0), replace(_holders(), epoch=2)])
async def test_an_altered_list_of_holders_is_refused(
    make_client: MakeClient, chain: SignedChain, served: HolderBook
) -> None:
    class ListLiar(ChainSource):
        async def abci_query(self, path: str, data: bytes, height: int, *, prove: bool) -> QueryAnswer:
            answer = await super().abci_query(path, data, height, prove=prove)
            return answer if prove else replace(answer, value=served.encode())

    with pytest.raises(BookRefused) as caught:
        await ProvedReads(make_client(ListLiar(chain))).holder_book(MODEL)
    assert holders_hash(_holders()).hex()[:16] in caught.value.message


async def test_a_chain_of_one_block_proves_the_state_of_genesis(
    make_client: MakeClient, chain: SignedChain
) -> None:
    # Block 1 of both chains is the same, so the root fits.
    young = SignedChain(("a", "b", "c"))
    young.add()
    reads = ProvedReads(make_client(ChainSource(young)))
    assert await reads.provable_height() == 0
    assert (await reads.read(b"genesis")).value == b"seed"
    assert await reads.account(ALICE) is None

    class GoneOn(ChainSource):
        """Has more blocks by the time the question comes."""

        async def abci_query(self, path: str, data: bytes, height: int, *, prove: bool) -> QueryAnswer:
            self.chain = chain
            return await super().abci_query(path, data, height, prove=prove)

    reads = ProvedReads(make_client(GoneOn(young)))
    assert await reads.account(ALICE) == records.Account(4_000_000, 2)
    with pytest.raises(HeightUnavailable, match="has gone on to 6"):
        await reads.account(ALICE, 0)


async def test_a_height_that_nothing_proves_is_refused(make_client: MakeClient, chain: SignedChain) -> None:
    young = SignedChain(("a", "b", "c"))
    young.add()
    ahead = QueryLiar(young, lambda answer: replace(answer, height=5))
    with pytest.raises(NotYetProvable, match="header 6 does not exist yet"):
        await ProvedReads(make_client(ahead)).account(ALICE)
