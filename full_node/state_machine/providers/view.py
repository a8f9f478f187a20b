"""Reading providers and their offers."""

from __future__ import annotations

from dllm_protocol import state_keys
from dllm_protocol.records import ModelSet, Offer, Provider, ProviderSet
from dllm_protocol.refusals import UnknownProvider
from full_node.state_machine.state import StateReader, read


def provider(state: StateReader, provider_id: bytes) -> Provider:
    """A registered provider. Raises UnknownProvider."""
    found = read(state, state_keys.provider(provider_id), Provider)
    if found is None:
        raise UnknownProvider(f"no provider {provider_id.hex()} is registered")
    return found


def is_registered(state: StateReader, provider_id: bytes) -> bool:
    """Whether a provider id is taken."""
    return state.get(state_keys.provider(provider_id)) is not None


def providers_of(state: StateReader, owner: bytes) -> tuple[bytes, ...]:
    """Ids of an owner's providers, ascending."""
    return _members(state, state_keys.providers_of(owner))


def offer(state: StateReader, model_name: str, provider_id: bytes) -> Offer | None:
    """A provider's offer record for a model; a withdrawn one stays while sessions are open on it."""
    return read(state, state_keys.offer(model_name, provider_id), Offer)


def stands(offer_record: Offer | None) -> bool:
    """Whether an offer takes sessions: it is there and was not withdrawn."""
    return offer_record is not None and offer_record.capacity_sessions > 0


def live_offers(state: StateReader, model_name: str) -> tuple[bytes, ...]:
    """Ids of providers with a standing offer for a model, ascending."""
    return _members(state, state_keys.live_offers(model_name))


def offered_models(state: StateReader, provider_id: bytes) -> tuple[str, ...]:
    """Names of the models that a provider offers, ascending."""
    offered = read(state, state_keys.offers_of(provider_id), ModelSet)
    return offered.names if offered else ()


def _members(state: StateReader, key: bytes) -> tuple[bytes, ...]:
    found = read(state, key, ProviderSet)
    return found.providers if found else ()
