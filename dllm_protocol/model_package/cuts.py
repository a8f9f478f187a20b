"""Where a model in pieces is cut so that its slices are as large as each other, in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from dllm_protocol.model_manifest import (
    PIECE_BLOCK,
    PIECE_EMBEDDING,
    PIECE_OUTPUT,
    Manifest,
)
from dllm_protocol.model_package.errors import LayersRefused
from dllm_protocol.ranked_book import least_slice


def layer_sizes(manifest: Manifest, *, is_tied: bool) -> list[int]:
    """What each layer weighs in a chunk, in bytes: its block; the embedding with the first layer, the output with the
    last, and there the embedding once more where it is the output matrix too.
    """
    blocks = {piece.index: piece.size_bytes for piece in manifest.pieces if piece.kind == PIECE_BLOCK}
    if sorted(blocks) != list(range(manifest.layers)) or not blocks:
        raise LayersRefused(f"{manifest.name} is not a model in pieces: it cannot be cut into slices")
    sizes = [blocks[layer] for layer in range(manifest.layers)]
    others = {piece.kind: piece.size_bytes for piece in manifest.pieces}
    embedding = others.get(PIECE_EMBEDDING, 0)
    sizes[0] += embedding
    sizes[-1] += others.get(PIECE_OUTPUT, 0) + (embedding if is_tied else 0)
    return sizes


def even_cuts(sizes: Sequence[int], count: int) -> tuple[int, ...]:
    """The borders of so many slices, from 0 to the number of layers, with the least sum of squared sizes.

    Every slice has at least as many layers as an offer must hold.

    Raises:
        LayersRefused: the model has too few layers.
    """
    layers = len(sizes)
    least = least_slice(layers)
    if not 1 <= count <= layers // least:
        raise LayersRefused(
            f"{layers} layers cannot be cut into {count} slices: "
            f"1 to {layers // least} are possible, each of at least {least}"
        )
    upto = [0, *accumulate(sizes)]
    # best[end]: (sum of squares, borders) of the cheapest cut of the first `end` layers.
    best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, (0,))}
    for slices_left in reversed(range(count)):
        ends = range(least, layers - slices_left * least + 1) if slices_left else (layers,)
        best = {
            end: min(
                (cost + (upto[end] - upto[first]) ** 2, (*borders, end))
                for first, (cost, borders) in best.items()
                if end - first >= least
            )
            for end in ends
            if any(end - first >= least for first in best)
        }
    return best[layers][1]
