"""Reading frozen offer books."""

from __future__ import annotations

from functools import lru_cache

from dllm_protocol import state_keys
from dllm_protocol.offer_book import OfferBook
from dllm_protocol.records import OfferBookHead
from full_node.state_machine.state import StateReader, read


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


@lru_cache(maxsize=64)
def _decoded(raw: bytes) -> OfferBook:
    """Decoding is a pure function and a book is read by every OpenSession of its epoch."""
    return OfferBook.decode(raw)
