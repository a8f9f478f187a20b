"""Actions on the model registry."""

from __future__ import annotations

from dllm_protocol.encoding import Nested, Record, record, wire
from dllm_protocol.model_manifest import Manifest


@record
class RegisterModel(Record):
    """Put a model into the registry under its manifest's name; the sender posts the model bond."""

    manifest: Manifest = wire(1, Nested(Manifest))
