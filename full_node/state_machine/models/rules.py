"""What a manifest must keep to before the registry takes it."""

from __future__ import annotations

from dllm_protocol.chat_templates import TEMPLATES
from dllm_protocol.model_manifest import PIECE_FILE, Manifest, is_cut_in_order, version_for
from dllm_protocol.refusals import BadValue


def check_manifest(manifest: Manifest) -> None:
    """Raises BadValue, naming what is wrong."""
    if manifest.layers == 0:
        raise BadValue(f"the model {manifest.name!r} has 0 layers, at least 1 is needed")
    if manifest.context_rows == 0:
        raise BadValue(f"the model {manifest.name!r} has a context of 0 rows, at least 1 is needed")
    if manifest.chat_template not in TEMPLATES:
        raise BadValue(
            f"the chat template {manifest.chat_template!r} is not one of {', '.join(sorted(TEMPLATES))}",
            hint="templates are a closed set: name the one that the model was trained with",
        )
    empty = next((piece for piece in manifest.pieces if piece.size_bytes == 0), None)
    if empty is not None:
        raise BadValue(f"the piece of kind {empty.kind} and index {empty.index} has 0 bytes")
    got = [(piece.kind, piece.index) for piece in manifest.pieces]
    if got != [(PIECE_FILE, 0)] and not is_cut_in_order(manifest):
        raise BadValue(
            f"the model's pieces are {got[:8]}: wanted is one file, or a header, an embedding, "
            f"{manifest.layers} blocks, an output and perhaps a probe, in this order"
        )
    if manifest.version != version_for(manifest.pieces):
        raise BadValue(
            f"the manifest has version {manifest.version}, with these pieces it is to have "
            f"{version_for(manifest.pieces)}: version 2 is that of models with a probe"
        )
