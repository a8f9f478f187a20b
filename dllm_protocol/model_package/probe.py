"""The probe of a model: rows whose way through every block is known, by which a chunk proves itself [format].

    tokens          `probe_tokens`: they follow from the size of the vocabulary, so nobody can choose easy ones
    hidden state i  what leaves block i - 1 and enters block i, for i from 1 to one below the number of blocks
    logits          the largest of each row at the end, with their tokens

So for any chunk there is something to put in and something that must come out. A model with rotary factors for short
and for long contexts computes one thing or another by the context that it was opened with; it has all of this twice,
and the second time `LONG` stands in the names. The piece is a GGUF file like all others, in the canonical form of
`layout`; its values are f32 and i32 as llama.cpp gave them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dllm_protocol.gguf.head import Head, Tensor, Value, encode_head, text
from dllm_protocol.gguf.kinds import F32, I32
from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.model_manifest import MAX_LAYERS, PIECE_PROBE
from dllm_protocol.model_package.errors import PieceRefused
from dllm_protocol.model_package.layout import (
    ARCHITECTURE_KEY,
    KIND_KEY,
    KIND_NAMES,
    MAX_EMBD,
    PROBE_PREFIX,
    PiecePlan,
    whole_number,
)

PROBE_ROWS: Final = 8
"""Rows of a probe: enough for positions to matter, few enough for one batch beside others' rows."""
PROBE_LOGITS: Final = 64
"""Logits of each row, fewer where the vocabulary is smaller."""
SHORT, LONG = "", "long."
"""The side of a model's original context that its chunks are opened on."""
_LONG_AND_SHORT: Final = {"rope_factors_long.weight", "rope_factors_short.weight"}
_CONTEXT_STEP: Final = 256
"""llama.cpp rounds a context up to a multiple of this."""


@dataclass(frozen=True, slots=True)
class ProbeShape:
    """How large a model's probe is."""

    layers: int
    n_embd: int
    """Width of a hidden state; of a model with one block, which hands none on, 0."""
    logits: int
    """Logits of each row."""
    has_sides: bool
    """Whether the model has rotary factors for short and for long contexts."""

    @property
    def sides(self) -> tuple[str, ...]:
        """`SHORT`, and `LONG` where there is such a side."""
        return (SHORT, LONG) if self.has_sides else (SHORT,)


def probe_tokens(vocab_size: int) -> list[int]:
    """The token ids of a probe's rows, all below ``vocab_size``."""
    size = vocab_size.to_bytes(4, "big")
    return [
        int.from_bytes(tagged_hash(Tag.PROBE_TOKEN, size, row.to_bytes(4, "big")), "big") % vocab_size
        for row in range(PROBE_ROWS)
    ]


def short_context_rows(
    architecture: str, metadata: Mapping[str, Value], tensor_names: Iterable[str]
) -> int | None:
    """The longest context on the short side of a model; None for a model that has no sides.

    Args:
        metadata, tensor_names: of the model's header piece, or of its file.

    Raises:
        ModelShapeRefused: it does not say.
    """
    if not _LONG_AND_SHORT.issubset(tensor_names):
        return None
    own, whole = f"{architecture}.rope.scaling.original_context_length", f"{architecture}.context_length"
    return whole_number(metadata, own if own in metadata else whole, (1 << 32) - 1)


def side_of(context_rows: int, short_rows: int | None) -> str:
    """The side that a chunk stands on when it is opened with a context of so many rows."""
    if short_rows is None:
        return SHORT
    return LONG if -(-context_rows // _CONTEXT_STEP) * _CONTEXT_STEP > short_rows else SHORT


def hidden_name(boundary: int, side: str = SHORT) -> str:
    """The tensor with what enters block ``boundary``."""
    return f"{PROBE_PREFIX}{side}hidden.{boundary}"


def logits_name(side: str = SHORT) -> str:
    """The tensor with the largest logits of each row."""
    return f"{PROBE_PREFIX}{side}logits"


def logit_ids_name(side: str = SHORT) -> str:
    """The tensor with their tokens."""
    return f"{PROBE_PREFIX}{side}logit_ids"


def plan_probe(architecture: str, shape: ProbeShape) -> PiecePlan:
    """The head of a probe's piece."""
    named = {ARCHITECTURE_KEY: text(architecture), KIND_KEY: text(KIND_NAMES[PIECE_PROBE])}
    return PiecePlan(PIECE_PROBE, 0, *encode_head(named, _tensors(shape)))


def probe_shape(head: Head) -> ProbeShape:
    """What a probe's head says of it; the head was checked by `layout.check_piece`.

    Raises:
        PieceRefused: tensors are missing, or of another kind or shape than a probe's.
    """
    found = {tensor.name: tensor for tensor in head.tensors}
    has_sides = logits_name(LONG) in found
    logits, first = found.get(logits_name()), found.get(hidden_name(1))
    count = logits.shape[0] if logits is not None and len(logits.shape) == 2 else 0
    width = first.shape[0] if first is not None and len(first.shape) == 2 else 0
    layers = len(found) // (2 if has_sides else 1) - 1
    if not 1 <= layers <= MAX_LAYERS or not 1 <= count <= PROBE_LOGITS or width > MAX_EMBD:
        raise PieceRefused(
            f"the probe has {len(found)} tensors, {count} logits a row and hidden states of {width} numbers: "
            f"at most {MAX_LAYERS + 1} a side, 1 to {PROBE_LOGITS}, and at most {MAX_EMBD} are possible"
        )
    shape = ProbeShape(layers, width, count, has_sides)
    wanted = _tensors(shape)
    if len(wanted) != len(found):
        raise PieceRefused(f"the probe has {len(found)} tensors, one of {layers} layers has {len(wanted)}")
    for tensor in wanted:
        got = found.get(tensor.name)
        if got is None or (got.shape, got.kind) != (tensor.shape, tensor.kind):
            said = "is missing" if got is None else f"has shape {got.shape} of {got.kind_name}"
            raise PieceRefused(
                f"tensor {tensor.name} of the probe {said}: {tensor.shape} of {tensor.kind_name} is wanted"
            )
    return shape


def _tensors(shape: ProbeShape) -> list[Tensor]:
    tensors = []
    for side in shape.sides:
        for boundary in range(1, shape.layers):
            tensors.append(Tensor(hidden_name(boundary, side), (shape.n_embd, PROBE_ROWS), F32))
        tensors.append(Tensor(logits_name(side), (shape.logits, PROBE_ROWS), F32))
        tensors.append(Tensor(logit_ids_name(side), (shape.logits, PROBE_ROWS), I32))
    return sorted(tensors, key=lambda tensor: tensor.name)
