"""A model's probe as the worker that serves a part of it reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dllm_protocol.gguf.head import Head
from dllm_protocol.model_manifest import PIECE_HEADER, Manifest, Piece, probe_of
from dllm_protocol.model_package.chunk import check_layers
from dllm_protocol.model_package.errors import LayersRefused, PieceRefused
from dllm_protocol.model_package.probe import (
    LONG,
    PROBE_ROWS,
    hidden_name,
    logit_ids_name,
    logits_name,
    probe_shape,
    short_context_rows,
    side_of,
)
from local_worker.engine.hidden import are_usable
from local_worker.engine.messages import Hidden
from local_worker.packages.package import copy_piece_data, piece_path, read_piece_head


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """What goes into the chunk [first, end) of a model of ``layers`` blocks, and what must come out of it."""

    first: int
    end: int
    layers: int
    is_routed: bool
    """Whether the model has experts."""
    entering: Hidden | None
    """Hidden states [rows, n_embd]; None for a first chunk, which takes `probe_tokens`."""
    leaving: Hidden | None
    """Hidden states; None for a last chunk, which gives logits."""
    logits: tuple[tuple[list[int], list[float]], ...]
    """Of a last chunk: tokens and logits of each row, largest first; else empty."""


def read_probe(package: Path, manifest: Manifest, first: int, end: int, *, context_rows: int) -> Probe | None:
    """A package's probe for the chunk [first, end), compared with the manifest; None where the model has none.

    Args:
        context_rows: what the chunk's engine is opened with; some models compute something else from a length on.

    Raises:
        LayersRefused: the model has no such layers.
        PieceRefused, PackageNotFound: it is not what the manifest says, or no probe of this model, or missing.
    """
    check_layers(manifest.layers, first, end)
    piece = probe_of(manifest)
    if piece is None:
        return None
    head, raw_head = read_piece_head(package, piece)
    shape = probe_shape(head)
    if shape.layers != manifest.layers:
        raise PieceRefused(f"the probe has {shape.layers} layers, the manifest {manifest.layers}")
    header = _header(package, manifest)
    short_rows = _short_rows(manifest, header)
    if shape.has_sides != (short_rows is not None):
        raise PieceRefused(
            "the probe is not for both sides of the model's original context, or for one too many"
        )
    side = side_of(context_rows, short_rows)
    ends = [hidden_name(boundary, side) if 0 < boundary < shape.layers else "" for boundary in (first, end)]
    wanted = [name for name in (*ends, logits_name(side), logit_ids_name(side)) if name]
    found = _read_tensors(package, piece, head, raw_head, wanted)
    entering, leaving = (_hidden(found[name], shape.n_embd, name) if name else None for name in ends)
    logits = _checked_logits(found[logits_name(side)], found[logit_ids_name(side)], shape.logits)
    return Probe(
        first=first,
        end=end,
        layers=shape.layers,
        is_routed=_is_routed(manifest.architecture, header),
        entering=entering,
        leaving=leaving,
        logits=logits if end == shape.layers else (),
    )


def require_short_side(package: Path, manifest: Manifest, first: int, end: int, *, context_rows: int) -> None:
    """Whether a chunk, opened with such a context, computes what the others of its route do.

    Some models rotate keys by other factors from a context's length on, whatever stands in it. Stages of different
    owners do not know each other's contexts, so all of them stand on the short side; a whole model may choose.

    Raises:
        LayersRefused: it stands on the long side.
        PieceRefused, PackageNotFound: as `read_probe`.
    """
    if (first, end) == (0, manifest.layers):
        return
    short_rows = _short_rows(manifest, _header(package, manifest))
    if side_of(context_rows, short_rows) == LONG:
        raise LayersRefused(
            f"with a context of {context_rows} rows {manifest.name} computes otherwise than with up to {short_rows}, "
            "which other stages of a route may have",
            hint=f"serve layers of this model with --context {short_rows} or less, or the whole model",
        )


def _header(package: Path, manifest: Manifest) -> Head:
    return read_piece_head(package, next(one for one in manifest.pieces if one.kind == PIECE_HEADER))[0]


def _short_rows(manifest: Manifest, header: Head) -> int | None:
    names = [tensor.name for tensor in header.tensors]
    return short_context_rows(manifest.architecture, header.metadata, names)


def nearest_probe(
    package: Path, own: Manifest, registered: Manifest, first: int, end: int, *, context_rows: int
) -> Probe | None:
    """The registry's probe where it lies in the package, else the package's own; None where there is neither.

    Two machines that cut one file record probes that differ in their last bits. What the registry names says most: it
    is another machine's, and the same for all. One's own still tells when a card goes bad.

    Raises:
        As `read_probe`.
    """
    piece = probe_of(registered)
    if piece is not None and piece_path(package, piece).is_file():
        return read_probe(package, registered, first, end, context_rows=context_rows)
    return read_probe(package, own, first, end, context_rows=context_rows)


def _read_tensors(
    package: Path, piece: Piece, head: Head, raw_head: bytes, names: list[str]
) -> dict[str, bytes]:
    """The bytes of some tensors, out of a piece that is compared as a whole."""
    places = {one.name: (one.offset, one.offset + one.size_bytes) for one in head.tensors}
    found = {name: bytearray() for name in names}
    at = 0

    def take(data: bytes) -> None:
        nonlocal at
        for name in names:
            start, end = (max(0, min(place - at, len(data))) for place in places[name])
            found[name] += data[start:end]
        at += len(data)

    copy_piece_data(package, piece, raw_head, take)
    return {name: bytes(data) for name, data in found.items()}


def _hidden(data: bytes, n_embd: int, name: str) -> Hidden:
    rows: Hidden = np.frombuffer(data, "<f4").reshape(PROBE_ROWS, n_embd).astype(np.float32, copy=False)
    if not are_usable(rows):
        raise PieceRefused(f"{name} has what is no number, or too large")
    return rows


def _checked_logits(logits: bytes, ids: bytes, count: int) -> tuple[tuple[list[int], list[float]], ...]:
    values = np.frombuffer(logits, "<f4").reshape(PROBE_ROWS, count)
    tokens = np.frombuffer(ids, "<i4").reshape(PROBE_ROWS, count)
    descending = bool((values[:, 1:] <= values[:, :-1]).all())
    if not are_usable(values) or not descending or (tokens < 0).any():
        raise PieceRefused("the probe's logits are not the largest of each row, in descending order")
    if any(len(set(row)) < count for row in tokens.tolist()):
        raise PieceRefused("the probe's logits name a token twice")
    return tuple(zip(tokens.tolist(), values.tolist(), strict=True))


def _is_routed(architecture: str, header: Head) -> bool:
    """Whether the model has experts; the header's hash was compared when the chunk was put together."""
    said = header.metadata.get(f"{architecture}.expert_count")
    return said is not None and not said.is_array() and said.integer("expert_count") > 1
