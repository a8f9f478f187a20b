"""Reading the model registry."""

from __future__ import annotations

from dllm_protocol import state_keys
from dllm_protocol.records import MODEL_ACTIVE, ModelRecord, ModelSet
from dllm_protocol.refusals import UnknownModel
from full_node.state_machine.state import StateReader, read

_STATUS_NAMES = ("", "proposed", "active", "deprecated", "retired")


def model(state: StateReader, name: str) -> ModelRecord | None:
    """A registered model, or None."""
    return read(state, state_keys.model(name), ModelRecord)


def names(state: StateReader) -> tuple[str, ...]:
    """Names of all models, ascending."""
    known = read(state, state_keys.MODELS, ModelSet)
    return known.names if known else ()


def active_model(state: StateReader, name: str) -> ModelRecord:
    """A model that may be offered and asked. Raises UnknownModel."""
    found = model(state, name)
    if found is None:
        raise UnknownModel(f"no model is called {name!r}", hint="`dllm model list` shows the registry")
    if found.status != MODEL_ACTIVE:
        raise UnknownModel(f"the model {name!r} is {_STATUS_NAMES[found.status]}, not active")
    return found
