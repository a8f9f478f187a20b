"""Into which pieces a model is cut [format].

    header      all metadata, and the tensors outside of blocks that every chunk needs (rotary factors)
    embedding   token_embd.weight
    block i     blk.i.*
    output      output_norm.weight, and output.weight where the embedding is not the output matrix too
    probe       rows by which a chunk proves itself, see `probe`; not every model has one

Each piece is a GGUF file of its own in one canonical form: version 3, keys and tensors in ascending order of their
names, alignment 32, zeros between tensors and behind the last. So a model has the same pieces however its file was
ordered or split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dllm_protocol.gguf.head import Head, Tensor, Value, encode_head, text, truth, u32
from dllm_protocol.model_manifest import (
    MAX_LAYERS,
    PIECE_BLOCK,
    PIECE_EMBEDDING,
    PIECE_HEADER,
    PIECE_OUTPUT,
    PIECE_PROBE,
    piece_order,
)
from dllm_protocol.model_package.architectures import (
    PER_LAYER_KEYS,
    Architecture,
    architecture_named,
    check_traits,
)
from dllm_protocol.model_package.errors import ModelShapeRefused, PieceRefused

EMBEDDING, OUTPUT_NORM, OUTPUT = "token_embd.weight", "output_norm.weight", "output.weight"
SHARED_TENSORS: Final = ("rope_factors_long.weight", "rope_factors_short.weight", "rope_freqs.weight")
ARCHITECTURE_KEY: Final = "general.architecture"
KIND_KEY, LAYER_KEY, TIED_KEY = "dllm.piece.kind", "dllm.piece.layer", "dllm.model.tied"
OWN_KEYS: Final = "dllm."
DROPPED_KEYS: Final = ("general.alignment", "split.")
"""Keys that say how a file is laid out; a piece has its own layout."""
KIND_NAMES: Final = {
    PIECE_HEADER: "header",
    PIECE_EMBEDDING: "embedding",
    PIECE_BLOCK: "block",
    PIECE_OUTPUT: "output",
    PIECE_PROBE: "probe",
}
PROBE_PREFIX: Final = "probe."
"""What the names of a probe's tensors begin with; no model that can be cut has such tensors."""
MAX_EMBD: Final = 1 << 16
_BLOCK = re.compile(r"blk\.(0|[1-9][0-9]{0,3})\.(.+)")


@dataclass(frozen=True, slots=True)
class Model:
    """What a model's head says, checked."""

    architecture: Architecture
    layers: int
    n_embd: int
    vocab_size: int
    context_rows: int
    is_tied: bool
    """Whether the embedding is the output matrix too."""


@dataclass(frozen=True, slots=True)
class PiecePlan:
    """One piece before it is written."""

    kind: int
    index: int
    raw_head: bytes
    head: Head


def block_of(name: str) -> tuple[int, str] | None:
    """The block's number and the rest of a tensor's name; None for a tensor outside of blocks."""
    match = _BLOCK.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


def whole_number(metadata: Mapping[str, Value], key: str, most: int) -> int:
    """A number between 1 and ``most`` that the metadata must have.

    Raises:
        ModelShapeRefused: it is missing or outside.
    """
    value = metadata.get(key)
    if value is None or value.is_array():
        raise ModelShapeRefused(f"the model does not say {key} as one number")
    number = value.integer(key)
    if not 1 <= number <= most:
        raise ModelShapeRefused(f"{key} is {number}, 1 to {most} is possible")
    return number


def examine(metadata: Mapping[str, Value], tensors: Iterable[Tensor]) -> Model:
    """Check that a whole model can be cut, and say what it is.

    Raises:
        ArchitectureRefused, ModelShapeRefused: naming what stands against it.
    """
    own = next((key for key in metadata if key.startswith(OWN_KEYS)), None)
    if own is not None:
        raise ModelShapeRefused(f"the file has {own}: it is a part of a model already, not a whole one")
    named = metadata.get(ARCHITECTURE_KEY)
    if named is None:
        raise ModelShapeRefused(f"the file does not say {ARCHITECTURE_KEY}")
    found = architecture_named(named.text(ARCHITECTURE_KEY))
    layers = whole_number(metadata, f"{found.name}.block_count", MAX_LAYERS)
    check_traits(found, metadata, layers)
    _check_arrays(found, metadata, layers)
    by_name = {tensor.name: tensor for tensor in tensors}
    n_embd = whole_number(metadata, f"{found.name}.embedding_length", MAX_EMBD)
    model = Model(
        architecture=found,
        layers=layers,
        n_embd=n_embd,
        vocab_size=_vocab_size(metadata, by_name, n_embd),
        context_rows=whole_number(metadata, f"{found.name}.context_length", (1 << 32) - 1),
        is_tied=OUTPUT not in by_name,
    )
    _check_tensors(model, metadata, by_name)
    return model


def _check_arrays(found: Architecture, metadata: Mapping[str, Value], layers: int) -> None:
    """One value a block, or one for all; an array that nobody knows to slice is refused rather than copied."""
    for key, value in metadata.items():
        if not value.is_array() or not key.startswith(f"{found.name}."):
            continue
        if key.removeprefix(f"{found.name}.") in PER_LAYER_KEYS:
            if value.count() != layers:
                raise ModelShapeRefused(f"{key} has {value.count()} values, the model {layers} blocks")
            value.integers(key)
        elif value.count() == layers:
            raise ModelShapeRefused(f"{key} seems to have a value a block, and is not known here")


def _vocab_size(metadata: Mapping[str, Value], by_name: Mapping[str, Tensor], n_embd: int) -> int:
    embedding = by_name.get(EMBEDDING)
    if embedding is None:
        raise ModelShapeRefused(f"the model has no {EMBEDDING}")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if tokens is None or not tokens.is_array():
        raise ModelShapeRefused("the model has no vocabulary (tokenizer.ggml.tokens)")
    if embedding.shape != (n_embd, tokens.count()):
        raise ModelShapeRefused(
            f"{EMBEDDING} has shape {embedding.shape}, metadata and vocabulary say {(n_embd, tokens.count())}"
        )
    return tokens.count()


def _check_tensors(model: Model, metadata: Mapping[str, Value], by_name: Mapping[str, Tensor]) -> None:
    for name, shape in (
        (OUTPUT_NORM, (model.n_embd,)),
        (OUTPUT, (model.n_embd, model.vocab_size)),
    ):
        tensor = by_name.get(name)
        if tensor is None and name == OUTPUT_NORM:
            raise ModelShapeRefused(f"the model has no {name}")
        if tensor is not None and tensor.shape != shape:
            raise ModelShapeRefused(f"{name} has shape {tensor.shape}, {shape} fits the model")
    if model.architecture.is_always_tied and not model.is_tied:
        raise ModelShapeRefused(f"{model.architecture.name} models have no {OUTPUT} of their own")
    if model.architecture.is_never_tied and model.is_tied:
        raise ModelShapeRefused(f"the model has no {OUTPUT}, which {model.architecture.name} models need")
    blocks: list[dict[str, tuple[int, ...]]] = [{} for _ in range(model.layers)]
    for name, tensor in by_name.items():
        place = block_of(name)
        if place is None:
            if name not in (EMBEDDING, OUTPUT_NORM, OUTPUT, *SHARED_TENSORS):
                raise ModelShapeRefused(
                    f"tensor {name} has no place in a {model.architecture.name} model that can be cut"
                )
        elif place[0] >= model.layers:
            raise ModelShapeRefused(f"tensor {name} lies behind the last of {model.layers} blocks")
        else:
            blocks[place[0]][place[1]] = tensor.shape
    _check_blocks(blocks, model, metadata)


def _check_blocks(
    blocks: list[dict[str, tuple[int, ...]]], model: Model, metadata: Mapping[str, Value]
) -> None:
    """All blocks have the same tensors, of the same shapes unless the metadata say otherwise block by block."""
    prefix = model.architecture.name
    varies = any(
        (value := metadata.get(f"{prefix}.{key}")) is not None and value.is_array()
        for key in PER_LAYER_KEYS
        if not key.endswith("pattern")
    )
    norm = blocks[0].get("attn_norm.weight")
    if norm != (model.n_embd,):
        raise ModelShapeRefused(f"blk.0.attn_norm.weight has shape {norm}, {(model.n_embd,)} fits the model")
    for number, block in enumerate(blocks):
        if different := sorted(block.keys() ^ blocks[0].keys()):
            raise ModelShapeRefused(f"blocks 0 and {number} differ: only one of them has {different[0]}")
        for name, shape in block.items():
            if shape != blocks[0][name] and not varies:
                raise ModelShapeRefused(
                    f"blk.{number}.{name} has shape {shape}, that of block 0 has {blocks[0][name]}"
                )


def plan_pieces(model: Model, metadata: Mapping[str, Value], tensors: Iterable[Tensor]) -> list[PiecePlan]:
    """The heads of all pieces, in the manifest's order: header, embedding, blocks, output."""
    groups: dict[tuple[int, int], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(piece_of(tensor.name), []).append(tensor)
    kept = {key: value for key, value in metadata.items() if not key.startswith(DROPPED_KEYS)}
    kept[TIED_KEY] = truth(model.is_tied)
    named = {ARCHITECTURE_KEY: text(model.architecture.name)}
    plans = []
    for kind, index in piece_order(model.layers):
        own = dict(kept if kind == PIECE_HEADER else named) | {KIND_KEY: text(KIND_NAMES[kind])}
        if kind == PIECE_BLOCK:
            own[LAYER_KEY] = u32(index)
        own_tensors = sorted(groups.get((kind, index), ()), key=lambda tensor: tensor.name)
        plans.append(PiecePlan(kind, index, *encode_head(own, own_tensors)))
    return plans


def piece_of(name: str) -> tuple[int, int]:
    """Kind and index of the piece that a tensor belongs in."""
    place = block_of(name)
    if place is not None:
        return PIECE_BLOCK, place[0]
    if name == EMBEDDING:
        return PIECE_EMBEDDING, 0
    if name.startswith(PROBE_PREFIX):
        return PIECE_PROBE, 0
    return (PIECE_OUTPUT, 0) if name in (OUTPUT, OUTPUT_NORM) else (PIECE_HEADER, 0)


def check_piece(head: Head, raw_head: bytes, kind: int, index: int) -> None:
    """Refuse a head that is not the one canonical form of this piece.

    Raises:
        PieceRefused: it is another piece, or written another way.
    """
    said = head.metadata.get(KIND_KEY)
    told = said.text(KIND_KEY)[:32] if said is not None else "nothing"
    if told != KIND_NAMES[kind]:
        raise PieceRefused(f"a piece says that it is {told!r}, the manifest says {KIND_NAMES[kind]!r}")
    names = [tensor.name for tensor in head.tensors]
    unknown = set(names).difference(SHARED_TENSORS) if kind == PIECE_HEADER else ()
    stray = next((name for name in names if piece_of(name) != (kind, index) or name in unknown), None)
    if stray is not None:
        raise PieceRefused(f"tensor {stray} does not belong in piece {piece_name(kind, index)}")
    keys = {ARCHITECTURE_KEY, KIND_KEY} | ({LAYER_KEY} if kind == PIECE_BLOCK else set())
    if kind != PIECE_HEADER and head.metadata.keys() != keys:
        raise PieceRefused(f"piece {piece_name(kind, index)} has other keys than {', '.join(sorted(keys))}")
    layout = next((key for key in head.metadata if key.startswith(DROPPED_KEYS)), None)
    if layout is not None:
        raise PieceRefused(f"piece {piece_name(kind, index)} has {layout}, which no piece has")
    if kind == PIECE_BLOCK and head.metadata[LAYER_KEY].integer(LAYER_KEY) != index:
        raise PieceRefused(f"piece {piece_name(kind, index)} says that it is another layer's")
    if names != sorted(names) or encode_head(head.metadata, head.tensors)[0] != raw_head:
        raise PieceRefused(f"the head of piece {piece_name(kind, index)} is not in its canonical form")


def piece_name(kind: int, index: int) -> str:
    """A piece as messages name it."""
    return f"{KIND_NAMES[kind]} {index}" if kind == PIECE_BLOCK else KIND_NAMES[kind]
