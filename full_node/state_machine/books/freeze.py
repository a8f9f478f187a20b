"""Freezing offers into books at the end of a block, and with them the holders.

A book is frozen for a model that has offers or holders but no book yet, and again once its newest book is stale and
either a new epoch has begun or the book is *thin*: while its offers make no cover of all layers nobody can be served,
and with offers of fewer than two owners in covers nobody has a standby, so the network does not wait an epoch for
the next. A block without transactions freezes nothing: an idle chain's state does not change.
"""

from __future__ import annotations

from dllm_protocol import state_keys
from dllm_protocol.holder_book import holders_hash
from dllm_protocol.offer_book import BookEntry, OfferBook, book_hash
from dllm_protocol.ranked_book import rules_of
from dllm_protocol.records import OfferBookHead
from dllm_protocol.reputation import score_ppm
from dllm_protocol.results import Event
from full_node.state_machine.books import view
from full_node.state_machine.books.holders import freeze_holders, is_alive
from full_node.state_machine.context import Scope, make_event
from full_node.state_machine.holders import view as holders
from full_node.state_machine.models import view as models
from full_node.state_machine.providers import view as providers
from full_node.state_machine.reputation.view import evidence
from full_node.state_machine.state import Overlay, StateReader


def freeze_books(state: Overlay, scope: Scope) -> list[Event]:
    """Freeze every book that is due; return what happened."""
    events = []
    for name in models.names(state):
        head = view.head(state, name)
        if _is_due(state, name, head, scope):
            events.append(_freeze(state, name, head, scope))
    return events


def _is_due(state: StateReader, name: str, head: OfferBookHead | None, scope: Scope) -> bool:
    if head is None:
        return bool(providers.live_offers(state, name) or holders.live_holders(state, name))
    return bool(head.stale) and (scope.epoch > head.epoch or _is_thin(state, name, scope))


def _is_thin(state: StateReader, name: str, scope: Scope) -> bool:
    model = models.model(state, name)
    book = view.ranked(state, name, rules_of(model.manifest, scope.params)) if model else None
    return book is None or book.is_thin


def _freeze(state: Overlay, name: str, earlier: OfferBookHead | None, scope: Scope) -> Event:
    """Write a model's book and its proved records, and forget the book before the previous one."""
    book = OfferBook(name, scope.epoch, _entries(state, name, scope))
    beside = freeze_holders(state, book, scope)
    head = OfferBookHead(
        model=name,
        epoch=scope.epoch,
        book_hash=book_hash(book),
        offers=len(book.entries),
        stale=0,
        previous_epoch=_previous_epoch(earlier, scope.epoch),
        holders_hash=holders_hash(beside),
        holders=len(beside.entries),
    )
    if earlier is not None and earlier.previous_epoch not in (head.epoch, head.previous_epoch):
        state.delete(state_keys.offer_list(name, earlier.previous_epoch))
        state.delete(state_keys.holder_list(name, earlier.previous_epoch))
        state.delete(state_keys.offer_book(name, earlier.previous_epoch))
    state.write(state_keys.offer_list(name, scope.epoch), book)
    state.write(state_keys.holder_list(name, scope.epoch), beside)
    state.write(state_keys.offer_book(name, scope.epoch), head)
    state.write(state_keys.latest_offer_book(name), head)
    return make_event(
        "offer_book_frozen",
        model=name,
        epoch=head.epoch,
        offers=head.offers,
        book_hash=head.book_hash,
    )


def _previous_epoch(earlier: OfferBookHead | None, epoch: int) -> int:
    """Epoch of the book before; the first book names its own."""
    if earlier is None:
        return epoch
    if earlier.epoch < epoch:
        return earlier.epoch
    # A thin book is replaced within its epoch: what came before it has not changed.
    return earlier.previous_epoch


def _entries(state: StateReader, name: str, scope: Scope) -> tuple[BookEntry, ...]:
    """Standing offers of providers that are alive and not jailed, ascending by provider."""
    entries = []
    for provider_id in providers.live_offers(state, name):
        provider = providers.provider(state, provider_id)
        offer = providers.offer(state, name, provider_id)
        if offer is None or provider.jailed or not is_alive(provider, scope):
            continue
        standing = evidence(state, provider_id, name, scope)
        entries.append(
            BookEntry(
                provider=provider_id,
                owner=provider.owner,
                first_layer=offer.first_layer,
                end_layer=offer.end_layer,
                prices=offer.prices,
                capacity_sessions=offer.capacity_sessions,
                reputation_ppm=score_ppm(standing),
            )
        )
    return tuple(entries)
