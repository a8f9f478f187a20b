"""Who may act for a provider, and what bonds and offers keep to."""

from __future__ import annotations

from dllm_protocol.actions import SetOffer
from dllm_protocol.model_manifest import is_chunked
from dllm_protocol.params import Params
from dllm_protocol.pricing import part_of
from dllm_protocol.ranked_book import ROUTE_STAGES_MAX, least_slice
from dllm_protocol.records import ModelRecord, Provider
from dllm_protocol.refusals import BadValue, BondTooSmall, NotAuthorised, PriceAboveReserve


def check_owner(provider: Provider, sender: bytes) -> None:
    """Raises NotAuthorised unless the owner asks."""
    if sender != provider.owner:
        raise NotAuthorised(f"{sender.hex()} asks, only the owner {provider.owner.hex()} may touch the bond")


def check_owner_or_operator(provider: Provider, sender: bytes) -> None:
    """Raises NotAuthorised unless the owner or the operator asks."""
    if sender not in (provider.owner, provider.operator):
        raise NotAuthorised(
            f"{sender.hex()} asks, only the owner {provider.owner.hex()} "
            f"or the operator {provider.operator.hex()} may"
        )


def check_bond(bond_udllm: int, params: Params) -> None:
    """Raises BondTooSmall below the minimum."""
    if bond_udllm < params.provider_bond_udllm:
        raise BondTooSmall(
            f"the bond would be {bond_udllm} udllm, at least {params.provider_bond_udllm} are needed"
        )


def check_may_offer(provider: Provider, params: Params) -> None:
    """Raises BondTooSmall for a provider that is jailed or not fully bonded."""
    if provider.jailed:
        raise BondTooSmall(
            f"the provider is jailed: its bond is {provider.bond_udllm} udllm after a slash, "
            f"{params.provider_bond_udllm} are needed",
            hint="bond again first",
        )
    check_bond(provider.bond_udllm, params)


def check_offer(action: SetOffer, model: ModelRecord) -> None:
    """Raises BadValue or PriceAboveReserve, naming what is wrong with an offer's terms."""
    layers = model.manifest.layers
    if not action.first_layer < action.end_layer <= layers:
        raise BadValue(
            f"layers [{action.first_layer}, {action.end_layer}) are offered, the model has [0, {layers})"
        )
    offered = action.end_layer - action.first_layer
    if offered < layers and not is_chunked(model.manifest):
        raise BadValue(
            f"layers [{action.first_layer}, {action.end_layer}) are offered of {action.model!r}, which is one file: "
            f"only all of [0, {layers}) can be",
            hint="a model is served in slices where its manifest lists header, embedding, blocks and output",
        )
    if offered < least_slice(layers):
        raise BadValue(
            f"{offered} layers are offered, of {layers} at least {least_slice(layers)} must be",
            hint=f"thinner slices would make routes of more than {ROUTE_STAGES_MAX} stages",
        )
    if action.capacity_sessions == 0:
        raise BadValue("an offer has room for at least 1 session, not 0", hint="withdraw it instead")
    reserve = part_of(model.manifest.reserve_prices, offered, layers)
    if not action.prices.within(reserve):
        raise PriceAboveReserve(
            f"asked is {action.prices}, the model's reserve for {offered} of {layers} layers is {reserve}",
            hint="lower every price to the reserve or below",
        )
