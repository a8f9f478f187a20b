"""What can be wrong with a model that is to be cut, or with its pieces."""

from __future__ import annotations

from dllm_protocol.errors import MalformedBytes, UsageRefused, VerificationFailed


class ArchitectureRefused(UsageRefused):
    """An architecture, or a trait of a model, that cannot be cut into chunks here."""

    code = "E_ARCHITECTURE"


class ModelShapeRefused(MalformedBytes):
    """Tensors that do not fit the metadata, or each other: one is missing, unknown, or of another shape."""

    code = "E_MODEL_SHAPE"


class PieceRefused(VerificationFailed):
    """Bytes that are not the piece that the manifest names."""

    code = "E_PIECE"


class LayersRefused(UsageRefused):
    """A range of layers that the model does not have, or that cannot be served as one chunk."""

    code = "E_LAYERS"
