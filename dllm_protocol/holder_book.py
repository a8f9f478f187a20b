"""The holder book: what placement decides over, frozen beside the offer book, provable by one hash [format].

It lists who serves a model, who loads a slice of it and who waits for one. Assignment reads none of this, so it is
no part of offers, nor of the routes that repeat them.
"""

from __future__ import annotations

from dllm_protocol.actions.holders import SPEED
from dllm_protocol.encoding import ADDRESS, BOOL, NAME, U64, ListOf, Nested, Record, Unsigned, record, wire
from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.model_manifest import MAX_LAYERS
from dllm_protocol.offer_book import MAX_ENTRIES, BookRefused

MAX_HOLDERS = 2 * MAX_ENTRIES
"""As many as may offer, and as many again who only say what they could hold."""


@record
class HolderEntry(Record):
    """A provider as placement sees it."""

    provider: bytes = wire(1, ADDRESS)
    owner: bytes = wire(2, ADDRESS)
    speed_layer_rows_s: int = wire(3, SPEED)
    """0: it offers layers and never said how fast it is."""
    memory_layers: int = wire(4, Unsigned(MAX_LAYERS))
    """0: it never said."""
    first_layer: int = wire(5, Unsigned(MAX_LAYERS))
    end_layer: int = wire(6, Unsigned(MAX_LAYERS))
    """Where it serves, or will once it has loaded; 0 and 0 while it waits."""
    since_epoch: int = wire(7, U64)
    """When it first named this slice."""
    is_serving: int = wire(8, BOOL)
    """1 if its standing offer is for exactly this slice."""


@record
class HolderBook(Record):
    """The canonical list: ascending by provider, one entry a provider."""

    model: str = wire(1, NAME)
    epoch: int = wire(2, U64)
    entries: tuple[HolderEntry, ...] = wire(3, ListOf(Nested(HolderEntry), MAX_HOLDERS))


def holders_hash(book: HolderBook) -> bytes:
    """What the chain proves of a holder book (32 bytes)."""
    return tagged_hash(Tag.HOLDER_BOOK, book.encode())


def check_holder_book(raw: bytes, *, model: str, epoch: int, expected_hash: bytes) -> HolderBook:
    """Decode a list that a stranger served and hold it against its proved hash.

    Raises:
        BookRefused: the hash differs (a shortened, lengthened or altered list), or it is another book's; both values.
        MalformedBytes: not a canonical book at all.
    """
    book = HolderBook.decode(raw)
    got = holders_hash(book)
    if got != expected_hash:
        raise BookRefused(
            f"the list of {len(book.entries)} holders hashes to {got.hex()[:16]}…, "
            f"proved is {expected_hash.hex()[:16]}…",
            hint="the node serves another list than the chain froze: use another node",
        )
    if (book.model, book.epoch) != (model, epoch):
        raise BookRefused(f"the list is for {book.model}@{book.epoch}, asked was {model}@{epoch}")
    return book
