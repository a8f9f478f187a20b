"""Writing what providers say of themselves for placement."""

from __future__ import annotations

from dllm_protocol import state_keys
from dllm_protocol.records import Holding, ProviderSet
from full_node.state_machine.holders import view
from full_node.state_machine.state import Overlay


def set_holding(state: Overlay, holding: Holding, *, is_listed: bool) -> None:
    """Store a holding, and list its provider unless it is listed already: the list is as long as there are holders."""
    state.write(state_keys.holding(holding.model, holding.provider), holding)
    if not is_listed:
        live = {holding.provider}.union(view.live_holders(state, holding.model))
        state.write(state_keys.live_holders(holding.model), ProviderSet(tuple(sorted(live))))


def withdraw_holding(state: Overlay, model_name: str, provider_id: bytes) -> None:
    """Forget a holding."""
    state.delete(state_keys.holding(model_name, provider_id))
    live = tuple(one for one in view.live_holders(state, model_name) if one != provider_id)
    state.write(state_keys.live_holders(model_name), ProviderSet(live))
