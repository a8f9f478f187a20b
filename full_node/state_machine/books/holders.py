"""Freezing what placement decides over: whoever offers layers of a model, loads some, or waits for them."""

from __future__ import annotations

from dllm_protocol.holder_book import HolderBook, HolderEntry
from dllm_protocol.offer_book import BookEntry, OfferBook
from dllm_protocol.records import Holding, Provider
from full_node.state_machine.context import Scope
from full_node.state_machine.holders import view as holders
from full_node.state_machine.providers import view as providers
from full_node.state_machine.state import StateReader


def is_alive(provider: Provider, scope: Scope) -> bool:
    """Whether it registered, offered or beat not too long ago."""
    return provider.alive_epoch + scope.params.offer_life_epochs >= scope.epoch


def freeze_holders(state: StateReader, offers: OfferBook, scope: Scope) -> HolderBook:
    """The holder book beside an offer book that is about to be frozen, ascending by provider."""
    offered = {entry.provider: entry for entry in offers.entries}
    entries = []
    for provider_id in sorted({*offered, *holders.live_holders(state, offers.model)}):
        offer = offered.get(provider_id)
        holding = holders.holding(state, offers.model, provider_id)
        if holding is None:
            if offer is not None:
                entries.append(_silent(offer))
            continue
        provider = providers.provider(state, provider_id)
        is_bonded = not provider.jailed and provider.bond_udllm >= scope.params.provider_bond_udllm
        if is_bonded and is_alive(provider, scope):
            entries.append(_said(holding, provider.owner, offer))
    return HolderBook(offers.model, offers.epoch, tuple(entries))


def _silent(offer: BookEntry) -> HolderEntry:
    """Who offers and says nothing of itself: its layers are held all the same."""
    return HolderEntry(
        provider=offer.provider,
        owner=offer.owner,
        speed_layer_rows_s=0,
        memory_layers=0,
        first_layer=offer.first_layer,
        end_layer=offer.end_layer,
        since_epoch=0,
        is_serving=1,
    )


def _said(holding: Holding, owner: bytes, offer: BookEntry | None) -> HolderEntry:
    slice_ = (holding.first_layer, holding.end_layer)
    serves = offer is not None and slice_ == (offer.first_layer, offer.end_layer)
    return HolderEntry(
        provider=holding.provider,
        owner=owner,
        speed_layer_rows_s=holding.speed_layer_rows_s,
        memory_layers=holding.memory_layers,
        first_layer=holding.first_layer,
        end_layer=holding.end_layer,
        since_epoch=holding.since_epoch,
        is_serving=int(serves),
    )
