"""Chunks: the blocks [first, end) of a model as a GGUF file of its own, which unpatched llama.cpp loads.

Hidden states enter a chunk that is not the first in place of the embedding's rows, and leave one that is not the
last behind its last block. llama.cpp insists on an embedding and an output norm in every file, so where a chunk never
uses them they are zeros. Where the output matrix is one of its own, the last chunk has it under the embedding's name:
llama.cpp takes the embedding as output matrix where a file has no other, and so no chunk carries both. Where it insists
on both, zeros stand in for the one that is not used, which are no more than a hole in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dllm_protocol.gguf.head import Head, Tensor, Value, encode_head, f32, text, u32
from dllm_protocol.gguf.kinds import F32, Q4_0, TENSOR_KINDS
from dllm_protocol.model_manifest import PIECE_BLOCK, PIECE_EMBEDDING, PIECE_HEADER, PIECE_OUTPUT
from dllm_protocol.model_package.architectures import (
    PER_LAYER_KEYS,
    Architecture,
    architecture_named,
    check_traits,
    kept_windows,
)
from dllm_protocol.model_package.errors import LayersRefused, PieceRefused
from dllm_protocol.model_package.layout import (
    ARCHITECTURE_KEY,
    EMBEDDING,
    MAX_EMBD,
    OUTPUT,
    OUTPUT_NORM,
    OWN_KEYS,
    TIED_KEY,
    block_of,
    piece_name,
    whole_number,
)

FIRST_KEY, END_KEY, LAYERS_KEY = "dllm.chunk.first_layer", "dllm.chunk.end_layer", "dllm.chunk.model_layers"
NO_VOCABULARY_ROWS: Final = 32
"""Rows of the embedding that stands in where a chunk has no vocabulary."""

PieceKey = tuple[int, int]
"""Kind and index of a piece."""


@dataclass(frozen=True, slots=True)
class ChunkPart:
    """What comes next in a chunk's file: a piece's data as it is, or zeros."""

    piece: PieceKey | None
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """A chunk's file: its head, and what follows."""

    raw_head: bytes
    parts: tuple[ChunkPart, ...]

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return len(self.raw_head) + sum(part.size_bytes for part in self.parts)


def check_layers(layers: int, first: int, end: int) -> None:
    """Refuse what is no range of a model's blocks.

    Raises:
        LayersRefused: naming both.
    """
    if not 0 <= first < end <= layers:
        raise LayersRefused(
            f"layers {first}:{end} of a model of {layers}", hint=f"for example 0:{max(1, layers // 2)}"
        )


def pieces_of_chunk(layers: int, first: int, end: int, *, is_tied: bool) -> list[PieceKey]:
    """Which pieces a chunk is made of: header, embedding where it is needed, blocks, output where it is needed.

    Raises:
        LayersRefused: no such range.
    """
    check_layers(layers, first, end)
    needs_embedding = first == 0 or (end == layers and is_tied)
    return [
        (PIECE_HEADER, 0),
        *([(PIECE_EMBEDDING, 0)] if needs_embedding else []),
        *((PIECE_BLOCK, layer) for layer in range(first, end)),
        *([(PIECE_OUTPUT, 0)] if end == layers else []),
    ]


def is_tied(header: Head) -> bool:
    """Whether a model's embedding is its output matrix too, as its header piece says.

    Raises:
        PieceRefused: it does not say.
    """
    value = header.metadata.get(TIED_KEY)
    if value is None or value.is_array():
        raise PieceRefused(f"the header piece does not say {TIED_KEY}")
    return bool(value.integer(TIED_KEY))


def plan_chunk(heads: Mapping[PieceKey, Head], layers: int, first: int, end: int) -> ChunkPlan:
    """The file of the chunk [first, end) out of the heads of its pieces.

    Args:
        heads: of every piece that `pieces_of_chunk` names; each checked by `layout.check_piece`.
        layers: blocks of the whole model.

    Raises:
        LayersRefused, PieceRefused, ModelShapeRefused, ArchitectureRefused: naming what stands against it.
    """
    header = heads[PIECE_HEADER, 0]
    found = architecture_named(_architecture_of(header))
    if whole_number(header.metadata, f"{found.name}.block_count", layers) != layers:
        raise PieceRefused(f"the header piece says {found.name}.block_count, the manifest {layers} layers")
    check_traits(found, header.metadata, layers)
    if end - first in found.counts_that_change_it:
        raise LayersRefused(
            f"a chunk of {end - first} {found.name} blocks would be taken for another model",
            hint="make it a block longer or shorter",
        )
    tied = is_tied(header)
    if end == layers and tied == any(one.name == OUTPUT for one in heads[PIECE_OUTPUT, 0].tensors):
        raise PieceRefused(f"the header piece says {TIED_KEY} = {tied}, the output piece says otherwise")
    n_embd = whole_number(header.metadata, f"{found.name}.embedding_length", MAX_EMBD)
    metadata = _metadata(found, header.metadata, layers, first, end)
    tensors: list[Tensor] = []
    parts: list[ChunkPart] = []
    for key in pieces_of_chunk(layers, first, end, is_tied=tied):
        head = heads[key]
        if _architecture_of(head) != found.name:
            raise PieceRefused(f"piece {piece_name(*key)} is of architecture {_architecture_of(head)[:64]!r}")
        tensors += (_renamed(found, tensor, key, first) for tensor in head.tensors)
        parts.append(ChunkPart(key, head.size_bytes - head.data_start))
    for stand_in in _stand_ins(found, tensors, n_embd):
        tensors.append(stand_in)
        parts.append(ChunkPart(None, -(-stand_in.size_bytes // 32) * 32))
    return ChunkPlan(encode_head(metadata, tensors)[0], tuple(parts))


def _architecture_of(head: Head) -> str:
    value = head.metadata.get(ARCHITECTURE_KEY)
    return value.text(ARCHITECTURE_KEY) if value is not None else ""


def _renamed(found: Architecture, tensor: Tensor, key: PieceKey, first: int) -> Tensor:
    name = tensor.name
    place = block_of(name)
    if place is not None:
        name = f"blk.{place[0] - first}.{place[1]}"
    elif key == (PIECE_OUTPUT, 0) and name == OUTPUT and first > 0 and not found.is_never_tied:
        name = EMBEDDING
    return Tensor(name, tensor.shape, tensor.kind)


def _stand_ins(found: Architecture, tensors: Iterable[Tensor], n_embd: int) -> list[Tensor]:
    """Zeros in the place of what llama.cpp wants to see and this chunk never computes with."""
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    matrix = shapes.get(EMBEDDING) or shapes.get(OUTPUT) or (n_embd, NO_VOCABULARY_ROWS)
    # Few bits a number where that is possible: beside a large vocabulary it is as large as what it stands in for.
    few_bits = Q4_0 if matrix[0] % TENSOR_KINDS[Q4_0][1] == 0 else F32
    made = []
    if EMBEDDING not in shapes:
        made.append(Tensor(EMBEDDING, matrix, few_bits))
    if OUTPUT_NORM not in shapes:
        made.append(Tensor(OUTPUT_NORM, (n_embd,), F32))
    if OUTPUT not in shapes and found.is_never_tied:
        made.append(Tensor(OUTPUT, matrix, few_bits))
    return made


def _metadata(
    found: Architecture, whole: Mapping[str, Value], layers: int, first: int, end: int
) -> dict[str, Value]:
    """The whole model's metadata, with everything that goes by a block's number as this chunk counts."""
    kept = {key: value for key, value in whole.items() if not key.startswith(OWN_KEYS)}
    if (first, end) == (0, layers):
        return kept
    if first > 0 and end < layers:
        kept = {key: value for key, value in kept.items() if not key.startswith("tokenizer.")}
        kept["tokenizer.ggml.model"] = text("no_vocab")
        kept[f"{found.name}.vocab_size"] = u32(NO_VOCABULARY_ROWS)
    for end_of_key in PER_LAYER_KEYS:
        value = kept.get(f"{found.name}.{end_of_key}")
        if value is not None and value.is_array():
            if value.count() != layers:
                raise PieceRefused(
                    f"{found.name}.{end_of_key} has {value.count()} values, the model {layers} layers"
                )
            kept[f"{found.name}.{end_of_key}"] = value.part(first, end)
    kept = kept_windows(found, kept, whole, layers, first, end)
    scale = f"{found.name}.{found.entry_scale_key}"
    if first > 0 and found.entry_scale_key and scale in kept:
        kept[scale] = f32(1.0)
    kept[f"{found.name}.block_count"] = u32(end - first)
    return kept | {FIRST_KEY: u32(first), END_KEY: u32(end), LAYERS_KEY: u32(layers)}
