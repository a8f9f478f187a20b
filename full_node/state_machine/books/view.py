"""Reading frozen offer books."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache

from dllm_protocol import state_keys
from dllm_protocol.offer_book import OfferBook
from dllm_protocol.ranked_book import RankedBook, RouteRules, rank
from dllm_protocol.records import OfferBookHead
from full_node.state_machine.state import StateReader, read

RANKED_OFFERS_MAX = 1 << 17
"""Offers of all ranked books that are kept; some 400 bytes each."""


def head(state: StateReader, model_name: str) -> OfferBookHead | None:
    """The proved record of a model's newest book, or None before the first."""
    return read(state, state_keys.latest_offer_book(model_name), OfferBookHead)


def book_bytes(state: StateReader, model_name: str, epoch: int) -> bytes | None:
    """The canonical list that was frozen in an epoch, or None where it is not served any more."""
    return state.get(state_keys.offer_list(model_name, epoch))


def book(state: StateReader, model_name: str, epoch: int) -> OfferBook | None:
    """The list that was frozen in an epoch, decoded."""
    raw = book_bytes(state, model_name, epoch)
    return None if raw is None else _decoded(raw)


def offers_in_force(state: StateReader, model_name: str) -> int:
    """How many offers and further holders stand in a model's newest books; 0 before the first.

    Books freeze at the end of a block, so that the figure is the same in the whole of the next one.
    """
    newest = head(state, model_name)
    return 0 if newest is None else newest.listed


def ranked(state: StateReader, model_name: str, rules: RouteRules) -> RankedBook | None:
    """A model's newest book in the order in which sessions take its offers, or None before the first."""
    newest = head(state, model_name)
    if newest is None:
        return None
    known = _ranked.find(newest.book_hash, rules)
    if known is not None:
        return known
    frozen = book(state, model_name, newest.epoch)
    if frozen is None:
        return None
    made = rank(frozen, rules)
    _ranked.keep(made)
    return made


class RankedBooks:
    """Ranked books by hash, the newest used, bounded by their offers: a book is ranked once for its whole epoch.

    Ranking is a pure function of what the hash binds, so that every state of every chain may share it.
    """

    def __init__(self, offers_max: int = RANKED_OFFERS_MAX) -> None:
        self._offers_max = offers_max
        self._books: OrderedDict[tuple[bytes, RouteRules], RankedBook] = OrderedDict()
        self._offers = 0

    def find(self, book_hash: bytes, rules: RouteRules) -> RankedBook | None:
        """A book that was kept."""
        key = (book_hash, rules)
        known = self._books.get(key)
        if known is not None:
            self._books.move_to_end(key)
        return known

    def keep(self, made: RankedBook) -> None:
        """Keeps a book that was not kept before, and forgets those used longest ago; one book is always kept."""
        self._books[made.book_hash, made.rules] = made
        self._offers += _room(made)
        while self._offers > self._offers_max and len(self._books) > 1:
            _, oldest = self._books.popitem(last=False)
            self._offers -= _room(oldest)


def _room(book: RankedBook) -> int:
    """What a book counts: one without offers takes room, too, and every block may freeze another one."""
    return 1 + book.offers


_ranked = RankedBooks()


@lru_cache(maxsize=8)
def _decoded(raw: bytes) -> OfferBook:
    """Decoding is a pure function, and a thin book is looked at in every block that changes its offers."""
    return OfferBook.decode(raw)
