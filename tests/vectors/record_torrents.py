"""Records `torrents.json`: pieces, and the torrents that every implementation must derive from them.

``python -m tests.vectors.record_torrents`` writes it anew; a change of the file is a change of a format.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from dllm_protocol.model_manifest import PIECE_BLOCK, Piece
from dllm_protocol.model_package.torrent import (
    PIECE_BYTES_MAX,
    PieceHashes,
    bencode,
    info_hash,
    span_bytes,
    torrent_info,
)
from dllm_protocol.seeding_place import SEEDING_VERSION, SeedingPlace

FILE = Path(__file__).with_name("torrents.json")
BLOCK, SPAN = 16 * 1024, 256 * 1024
SIZES = (
    *(1, BLOCK - 1, BLOCK, BLOCK + 1),
    *(SPAN - BLOCK, SPAN - 1, SPAN, SPAN + 1, SPAN + BLOCK),
    *(2 * SPAN, 2 * SPAN + 1, 3 * SPAN - 5, 4 * SPAN, 5 * SPAN + 3 * BLOCK + 7),
)
PORTS = (1, 443, 6881, 65_535)
LARGE = (16384 * SPAN, 16384 * SPAN + 1, 100_000_000_000, PIECE_BYTES_MAX)
"""Too large to be made here: their torrents are derived from a root that is given."""


def content(size_bytes: int) -> bytes:
    """A piece's bytes: SHA-256 of 0, 1, 2, … in decimal, one behind the other, cut to size."""
    count = -(-size_bytes // 32)
    return b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(count))[:size_bytes]


def examples() -> dict[str, object]:
    """Everything in `torrents.json`."""
    whole = content(max(SIZES))
    torrents = []
    for size in SIZES:
        hashes = PieceHashes(size)
        hashes.update(whole[:size])
        torrents.append(
            _torrent(Piece(PIECE_BLOCK, 0, size, hashes.root())) | {"spans": hashes.spans().hex()}
        )
    root = hashlib.sha256(b"given").digest()
    return {
        "description": "Torrents of pieces. Bytes of a piece: SHA-256 of the texts 0, 1, 2, ... one behind the "
        "other, cut to size; those of 'large' are not made, their root is SHA-256 of 'given'. All bytes are hex.",
        "torrents": torrents,
        "seeding places": [
            {"port": port, "bytes": SeedingPlace(SEEDING_VERSION, port).encode().hex()} for port in PORTS
        ],
        "large": [_torrent(Piece(PIECE_BLOCK, 0, size, root)) for size in LARGE],
    }


def _torrent(piece: Piece) -> dict[str, object]:
    return {
        "size_bytes": piece.size_bytes,
        "root": piece.root.hex(),
        "span_bytes": span_bytes(piece.size_bytes),
        "info": bencode(torrent_info(piece)).hex(),
        "info hash": info_hash(piece).hex(),
    }


def main() -> None:
    """Write the file."""
    FILE.write_text(json.dumps(examples(), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
