"""A model's manifest: the bytes that the registry promises [format].

A piece is named by its BitTorrent v2 root (BEP 52: SHA-256 Merkle tree over 16 KiB blocks, padded with zero
hashes to a power of two), so that any BitTorrent client can carry it. A model that fits one machine is one
piece of kind FILE; a chunked model has a header, an embedding, one piece a block and an output, and may have a probe
behind them, by which a chunk proves itself before it serves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from dllm_protocol.encoding import (
    HASH,
    NAME,
    U32,
    U64,
    FormatVersion,
    ListOf,
    Nested,
    Record,
    Text,
    Unsigned,
    record,
    wire,
)
from dllm_protocol.hashing import Tag, tagged_hash
from dllm_protocol.pricing import RowPrices

MANIFEST_VERSION, PROBED_VERSION = 1, 2
"""Version 2 is that of manifests which name a probe, and of no others: so a model has one manifest and one id."""
PIECE_FILE, PIECE_HEADER, PIECE_EMBEDDING, PIECE_BLOCK, PIECE_OUTPUT, PIECE_PROBE = 1, 2, 3, 4, 5, 6
MAX_LAYERS = 512
BLOCK_BYTES = 16 * 1024


@record
class Piece(Record):
    """One content-addressed part of a model."""

    kind: int = wire(1, Unsigned(PIECE_PROBE, minimum=1))
    """One of the PIECE_ constants."""
    index: int = wire(2, Unsigned(MAX_LAYERS))
    """Layer number of a block; 0 for the others."""
    size_bytes: int = wire(3, U64)
    root: bytes = wire(4, HASH)
    """BitTorrent v2 root."""


@record
class Manifest(Record):
    """What a model is, to the byte. Its id is `manifest_hash`."""

    version: int = wire(1, FormatVersion(PROBED_VERSION, minimum=1))
    name: str = wire(2, NAME)
    architecture: str = wire(3, NAME)
    """llama.cpp's name, e.g. ``llama``."""
    layers: int = wire(4, Unsigned(MAX_LAYERS))
    context_rows: int = wire(5, U32)
    """Longest sequence the model was made for."""
    vocabulary_hash: bytes = wire(6, HASH)
    """Hash of the canonical `dllm_protocol.vocabulary.Vocabulary`."""
    chat_template: str = wire(7, NAME)
    """One name of the closed set in `dllm_protocol.chat_templates`; templates inside files are never run."""
    licence: str = wire(8, Text(64))
    reserve_prices: RowPrices = wire(9, Nested(RowPrices))
    """The most that an offer for this model may ask."""
    pieces: tuple[Piece, ...] = wire(10, ListOf(Nested(Piece), MAX_LAYERS + 4, minimum=1))


def manifest_hash(manifest: Manifest) -> bytes:
    """Identity of the model that the manifest describes (32 bytes)."""
    return tagged_hash(Tag.MANIFEST, manifest.encode())


def piece_order(layers: int) -> list[tuple[int, int]]:
    """Kind and index of each piece of a model that is cut into pieces, in the manifest's order."""
    blocks = [(PIECE_BLOCK, layer) for layer in range(layers)]
    return [(PIECE_HEADER, 0), (PIECE_EMBEDDING, 0), *blocks, (PIECE_OUTPUT, 0)]


def probe_of(manifest: Manifest) -> Piece | None:
    """The piece with the model's probe; None where the model has none."""
    return next((piece for piece in manifest.pieces if piece.kind == PIECE_PROBE), None)


def weights_of(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """The pieces without the probe: by these a model is known, whichever machine recorded its probe."""
    return tuple(piece for piece in pieces if piece.kind != PIECE_PROBE)


def is_cut_in_order(manifest: Manifest) -> bool:
    """Whether the pieces are all those of a model in pieces, in the manifest's order, with or without a probe."""
    order = [(piece.kind, piece.index) for piece in manifest.pieces]
    return order in (piece_order(manifest.layers), [*piece_order(manifest.layers), (PIECE_PROBE, 0)])


def version_for(pieces: Iterable[Piece]) -> int:
    """The version that a manifest of these pieces has."""
    return PROBED_VERSION if any(piece.kind == PIECE_PROBE for piece in pieces) else MANIFEST_VERSION


class PieceRoot:
    """Computes a piece's root while its bytes go by; keeps one hash a level of the tree, whatever the size."""

    def __init__(self) -> None:
        self._rest = b""
        self._levels: list[bytes | None] = []
        """The subtree of 2^i blocks that waits for its right neighbour, by i."""
        self.size_bytes = 0

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes, however many."""
        self.size_bytes += len(data)
        view = memoryview(data)
        if self._rest:
            wanted = BLOCK_BYTES - len(self._rest)
            self._rest += bytes(view[:wanted])
            view = view[wanted:]
            if len(self._rest) < BLOCK_BYTES:
                return
            self._add(hashlib.sha256(self._rest).digest())
            self._rest = b""
        whole = len(view) - len(view) % BLOCK_BYTES
        for start in range(0, whole, BLOCK_BYTES):
            self._add(hashlib.sha256(view[start : start + BLOCK_BYTES]).digest())
        self._rest = bytes(view[whole:])

    def root(self) -> bytes:
        """The root of all bytes so far (32 bytes)."""
        waiting = list(self._levels)
        found = hashlib.sha256(self._rest).digest() if self._rest else None
        padding = bytes(32)
        for level, left in enumerate(waiting):
            above = any(one is not None for one in waiting[level + 1 :])
            if left is not None and found is not None:
                found = hashlib.sha256(left + found).digest()
            elif left is not None and above:
                found = hashlib.sha256(left + padding).digest()
            elif left is not None:
                found = left
            elif found is not None:
                found = hashlib.sha256(found + padding).digest()
            padding = hashlib.sha256(padding + padding).digest()
        return found if found is not None else bytes(32)

    def _add(self, leaf: bytes) -> None:
        for level, left in enumerate(self._levels):
            if left is None:
                self._levels[level] = leaf
                return
            leaf = hashlib.sha256(left + leaf).digest()
            self._levels[level] = None
        self._levels.append(leaf)


def is_chunked(manifest: Manifest) -> bool:
    """Whether the model has pieces of its own for each block, so that it can be served in slices."""
    return any(piece.kind == PIECE_BLOCK for piece in manifest.pieces)


def piece_root(blocks: Iterable[bytes]) -> bytes:
    """BitTorrent v2 root of a byte stream (32 bytes; BEP 52 "pieces root").

    Args:
        blocks: the stream, cut anywhere.
    """
    root = PieceRoot()
    for block in blocks:
        root.update(block)
    return root.root()
