"""A model's manifest: the bytes that the registry promises [format].

A piece is named by its BitTorrent v2 root (BEP 52: SHA-256 Merkle tree over 16 KiB blocks, padded with zero
hashes to a power of two), so that any BitTorrent client can carry it. A model that fits one machine is one
piece of kind FILE; a chunked model has a header, an embedding, one piece a block and an output.
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

MANIFEST_VERSION = 1
PIECE_FILE, PIECE_HEADER, PIECE_EMBEDDING, PIECE_BLOCK, PIECE_OUTPUT = 1, 2, 3, 4, 5
MAX_LAYERS = 512
BLOCK_BYTES = 16 * 1024


@record
class Piece(Record):
    """One content-addressed part of a model."""

    kind: int = wire(1, Unsigned(PIECE_OUTPUT, minimum=1))
    """One of the PIECE_ constants."""
    index: int = wire(2, Unsigned(MAX_LAYERS))
    """Layer number of a block; 0 for the others."""
    size_bytes: int = wire(3, U64)
    root: bytes = wire(4, HASH)
    """BitTorrent v2 root."""


@record
class Manifest(Record):
    """What a model is, to the byte. Its id is `manifest_hash`."""

    version: int = wire(1, FormatVersion(MANIFEST_VERSION, minimum=1))
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
    pieces: tuple[Piece, ...] = wire(10, ListOf(Nested(Piece), MAX_LAYERS + 3, minimum=1))


def manifest_hash(manifest: Manifest) -> bytes:
    """Identity of the model that the manifest describes (32 bytes)."""
    return tagged_hash(Tag.MANIFEST, manifest.encode())


def piece_root(blocks: Iterable[bytes]) -> bytes:
    """BitTorrent v2 root of a byte stream (32 bytes; BEP 52 "pieces root").

    Args:
        blocks: the stream cut into 16 KiB blocks, the last one shorter or equal.
    """
    level = [hashlib.sha256(block).digest() for block in blocks]
    if not level:
        return bytes(32)
    padding = bytes(32)
    while len(level) > 1:
        if len(level) % 2:
            level.append(padding)
        level = [hashlib.sha256(level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
        padding = hashlib.sha256(padding + padding).digest()
    return level[0]
