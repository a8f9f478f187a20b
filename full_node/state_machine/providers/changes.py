"""Writing providers, their bonds and their offers."""

from __future__ import annotations

from bisect import insort
from dataclasses import replace
from typing import TypeVar

from dllm_protocol import state_keys
from dllm_protocol.records import ModelSet, Offer, Provider, ProviderSet
from full_node.state_machine.accounts.changes import credit
from full_node.state_machine.context import ActionContext
from full_node.state_machine.providers import view
from full_node.state_machine.state import Overlay

_M = TypeVar("_M", bytes, str)


def write_provider(state: Overlay, provider_id: bytes, provider: Provider) -> None:
    """Store a provider's record."""
    state.write(state_keys.provider(provider_id), provider)


def add_to_owner(state: Overlay, owner: bytes, provider_id: bytes) -> None:
    """List a new provider among its owner's."""
    members = list(view.providers_of(state, owner))
    insort(members, provider_id)
    state.write(state_keys.providers_of(owner), ProviderSet(tuple(members)))


def collect_matured(ctx: ActionContext, provider: Provider) -> Provider:
    """Pay out bond whose unbonding time is over; return the provider without it."""
    due = [entry for entry in provider.unbonding if entry.release_time_ms <= ctx.block.time_ms]
    if not due:
        return provider
    credit(ctx.state, provider.owner, sum(entry.amount_udllm for entry in due))
    waiting = tuple(entry for entry in provider.unbonding if entry.release_time_ms > ctx.block.time_ms)
    return replace(provider, unbonding=waiting)


def set_offer(state: Overlay, offer: Offer) -> None:
    """Store an offer's record and list it where it stands."""
    stood = view.stands(view.offer(state, offer.model, offer.provider))
    state.write(state_keys.offer(offer.model, offer.provider), offer)
    if stood:
        return  # it is listed already, and the lists are as long as the model has offers
    live = _with(view.live_offers(state, offer.model), offer.provider)
    state.write(state_keys.live_offers(offer.model), ProviderSet(live))
    offered = _with(view.offered_models(state, offer.provider), offer.model)
    state.write(state_keys.offers_of(offer.provider), ModelSet(offered))


def withdraw_offer(state: Overlay, offer: Offer) -> None:
    """Take an offer off the lists. Its record stays, with no room, while sessions are open on it."""
    _store_or_drop(state, replace(offer, capacity_sessions=0))
    live = _without(view.live_offers(state, offer.model), offer.provider)
    state.write(state_keys.live_offers(offer.model), ProviderSet(live))
    offered = _without(view.offered_models(state, offer.provider), offer.model)
    state.write(state_keys.offers_of(offer.provider), ModelSet(offered))


def count_session(state: Overlay, model_name: str, provider_id: bytes, change: int) -> None:
    """One session more (+1) or less (-1) is open on a provider's offer."""
    offer = view.offer(state, model_name, provider_id)
    if offer is not None:
        _store_or_drop(state, replace(offer, open_sessions=offer.open_sessions + change))


def _store_or_drop(state: Overlay, offer: Offer) -> None:
    key = state_keys.offer(offer.model, offer.provider)
    if offer.capacity_sessions or offer.open_sessions:
        state.write(key, offer)
    else:
        state.delete(key)


def _with(members: tuple[_M, ...], member: _M) -> tuple[_M, ...]:
    return tuple(sorted({member}.union(members)))


def _without(members: tuple[_M, ...], member: _M) -> tuple[_M, ...]:
    return tuple(one for one in members if one != member)
