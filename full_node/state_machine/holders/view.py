"""Reading what providers say of themselves for placement."""

from __future__ import annotations

from dllm_protocol import state_keys
from dllm_protocol.records import Holding, ProviderSet
from full_node.state_machine.state import StateReader, read


def holding(state: StateReader, model_name: str, provider_id: bytes) -> Holding | None:
    """What a provider says of itself for a model."""
    return read(state, state_keys.holding(model_name, provider_id), Holding)


def live_holders(state: StateReader, model_name: str) -> tuple[bytes, ...]:
    """Ids of providers with a holding for a model, ascending."""
    found = read(state, state_keys.live_holders(model_name), ProviderSet)
    return found.providers if found else ()
