"""The offer book: what assignment chooses from, frozen by epoch, provable by one hash [format]."""

from __future__ import annotations

from dllm_protocol.encoding import (
    ADDRESS,
    NAME,
    U32,
    U64,
    ListOf,
    Nested,
    Record,
    Unsigned,
    record,
    wire,
)
from dllm_protocol.encoding import PPM as SCORE
from dllm_protocol.errors import VerificationFailed
from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.model_manifest import MAX_LAYERS
from dllm_protocol.pricing import RowPrices

MAX_ENTRIES = 1 << 16


class BookRefused(VerificationFailed):
    """A list of offers that is not the one whose hash was proved."""

    code = "E_OFFER_BOOK"


@record
class BookEntry(Record):
    """An offer as frozen, with the standing of its provider at that moment."""

    provider: bytes = wire(1, ADDRESS)
    owner: bytes = wire(2, ADDRESS)
    first_layer: int = wire(3, Unsigned(MAX_LAYERS))
    end_layer: int = wire(4, Unsigned(MAX_LAYERS))
    prices: RowPrices = wire(5, Nested(RowPrices))
    """For a row through all layers of the slice."""
    capacity_sessions: int = wire(6, U32)
    reputation_ppm: int = wire(7, SCORE)
    """Score of the provider for this model, in millionths."""


@record
class OfferBook(Record):
    """The canonical list: ascending by provider, one entry a provider."""

    model: str = wire(1, NAME)
    epoch: int = wire(2, U64)
    entries: tuple[BookEntry, ...] = wire(3, ListOf(Nested(BookEntry), MAX_ENTRIES))


def book_hash(book: OfferBook) -> bytes:
    """What the chain proves of a book (32 bytes)."""
    return tagged_hash(Tag.OFFER_BOOK, book.encode())


def check_book(raw: bytes, *, model: str, epoch: int, expected_hash: bytes) -> OfferBook:
    """Decode a list that a stranger served and hold it against its proved hash.

    Raises:
        BookRefused: the hash differs (a shortened, lengthened or altered list), naming both hashes.
        MalformedBytes: not a canonical book at all.
    """
    book = OfferBook.decode(raw)
    got = book_hash(book)
    if got != expected_hash:
        raise BookRefused(
            f"the list of {len(book.entries)} offers hashes to {got.hex()[:16]}…, "
            f"proved is {expected_hash.hex()[:16]}…",
            hint="the node serves another list than the chain froze: use another node",
        )
    if (book.model, book.epoch) != (model, epoch):
        raise BookRefused(f"the list is for {book.model}@{book.epoch}, asked was {model}@{epoch}")
    return book
