"""Writing the model registry."""

from __future__ import annotations

from bisect import insort

from dllm_protocol import state_keys
from dllm_protocol.model_manifest import Manifest
from dllm_protocol.records import MODEL_ACTIVE, ModelRecord, ModelSet
from full_node.state_machine.models import view
from full_node.state_machine.state import Overlay


def add_model(state: Overlay, owner: bytes, manifest: Manifest, bond_udllm: int) -> None:
    """Put a model, active, into the registry and into the provable set of names."""
    names = list(view.names(state))
    insort(names, manifest.name)
    state.write(state_keys.MODELS, ModelSet(tuple(names)))
    record = ModelRecord(owner, manifest, bond_udllm, MODEL_ACTIVE)
    state.write(state_keys.model(manifest.name), record)
