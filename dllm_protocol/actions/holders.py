"""What providers say of themselves for placement: how fast they are, how much they can hold, and where they stand."""

from __future__ import annotations

from dllm_protocol.encoding import ADDRESS, NAME, Record, Unsigned, record, wire
from dllm_protocol.model_manifest import MAX_LAYERS
from dllm_protocol.placement.holders import MAX_SPEED_LAYER_ROWS_S

SPEED = Unsigned(MAX_SPEED_LAYER_ROWS_S)


@record
class SetHolding(Record):
    """Say what a provider can hold of a model, how fast it is, and which layers it serves, loads or waits for."""

    provider: bytes = wire(1, ADDRESS)
    model: str = wire(2, NAME)
    speed_layer_rows_s: int = wire(3, SPEED)
    """Rows a second through one layer, measured by itself."""
    memory_layers: int = wire(4, Unsigned(MAX_LAYERS))
    """The most layers that it can hold."""
    first_layer: int = wire(5, Unsigned(MAX_LAYERS))
    end_layer: int = wire(6, Unsigned(MAX_LAYERS))
    """Where it serves, or will once it has loaded; 0 and 0 while it waits."""


@record
class WithdrawHolding(Record):
    """Take back what a provider said of itself for a model; its offer stands on its own."""

    provider: bytes = wire(1, ADDRESS)
    model: str = wire(2, NAME)
