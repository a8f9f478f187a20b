"""What a provider may say of itself for placement."""

from __future__ import annotations

from dllm_protocol.actions import SetHolding
from dllm_protocol.model_manifest import is_chunked
from dllm_protocol.ranked_book import ROUTE_STAGES_MAX, least_slice
from dllm_protocol.records import ModelRecord
from dllm_protocol.refusals import BadValue


def check_holding(action: SetHolding, model: ModelRecord) -> None:
    """Raises BadValue, naming what no provider can be or hold."""
    layers = model.manifest.layers
    if action.speed_layer_rows_s == 0:
        raise BadValue("a speed of 0 layer-rows a second is said; measure it, it is at least 1")
    if not 1 <= action.memory_layers <= layers:
        raise BadValue(
            f"memory for {action.memory_layers} layers is said of a model of {layers}",
            hint=f"say 1 to {layers}; {layers} where all fit, however much is left",
        )
    if (action.first_layer, action.end_layer) != (0, 0):
        _check_slice(action, layers, chunked=is_chunked(model.manifest))


def _check_slice(action: SetHolding, layers: int, *, chunked: bool) -> None:
    first, end = action.first_layer, action.end_layer
    if not first < end <= layers:
        raise BadValue(f"layers [{first}, {end}) are named, the model has [0, {layers})")
    if end - first < layers and not chunked:
        raise BadValue(
            f"layers [{first}, {end}) are named of {action.model!r}, which is one file: only all of [0, {layers}) "
            "can be held"
        )
    if end - first < least_slice(layers):
        raise BadValue(
            f"{end - first} layers are named, of {layers} at least {least_slice(layers)} must be held",
            hint=f"thinner slices would make routes of more than {ROUTE_STAGES_MAX} stages",
        )
    if end - first > action.memory_layers:
        raise BadValue(
            f"{end - first} layers are named, with memory for {action.memory_layers}",
            hint="say memory for at least what is held",
        )
