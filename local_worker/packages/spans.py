"""Hashes of the spans of a package's pieces: what web seeds are checked by while bytes come in.

PACKAGE/spans/ROOT     the hashes of a piece's spans, one behind the other; no file for a piece of one span

They can be worked out of the piece at any time, and are compared with its root wherever they come from.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from dllm_protocol.model_manifest import Piece
from dllm_protocol.model_package.errors import PieceRefused
from dllm_protocol.model_package.torrent import HASH_BYTES, SPANS_MAX, PieceHashes, check_spans, span_count
from local_worker.packages.disk import COPY_BYTES, create_file, sync_folder, write_all

SPANS_FOLDER: Final = "spans"
SPANS_BYTES_MAX: Final = HASH_BYTES * SPANS_MAX


def spans_path(package: Path, piece: Piece) -> Path:
    """Where the hashes of a piece's spans lie."""
    return package / SPANS_FOLDER / piece.root.hex()


def read_spans(package: Path, piece: Piece) -> bytes | None:
    """The hashes of a piece's spans; None where they are missing or not the piece's.

    Raises:
        PieceRefused: the piece's size cannot travel.
    """
    if span_count(piece.size_bytes) == 1:
        return b""
    try:
        descriptor = os.open(
            spans_path(package, piece), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        )
        with os.fdopen(descriptor, "rb") as file:
            spans = file.read(SPANS_BYTES_MAX + 1)
        check_spans(piece, spans)
    except (OSError, PieceRefused):
        return None
    return spans


def store_spans(package: Path, piece: Piece, spans: bytes) -> None:
    """Keep the hashes of a piece's spans; the file is whole or not there.

    Raises:
        OSError: the disk's.
    """
    if not spans:
        return
    path = spans_path(package, piece)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    partial = path.with_name(f".{path.name}.new")
    descriptor = create_file(partial)
    try:
        write_all(descriptor, spans)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    partial.replace(path)
    sync_folder(path.parent)


def hash_file(path: Path, piece: Piece) -> PieceHashes | None:
    """The hashes of a file that is to be a piece; None where it is no file of the piece's size.

    Raises:
        PieceRefused: the piece's size cannot travel.
        OSError: the disk does not give it back.
    """
    hashes = PieceHashes(piece.size_bytes)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size != piece.size_bytes:
            return None
        while (data := file.read(COPY_BYTES)) and hashes.size_bytes <= piece.size_bytes:
            hashes.update(data)
    return hashes


def is_piece(hashes: PieceHashes | None, piece: Piece) -> bool:
    """Whether what was hashed is the piece that the manifest names."""
    return hashes is not None and (hashes.size_bytes, hashes.root()) == (piece.size_bytes, piece.root)
