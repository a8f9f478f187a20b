"""Where a piece lies until all of it is there, and how it gets its name."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from dllm_protocol.model_manifest import Piece
from dllm_protocol.model_package.errors import PieceRefused
from dllm_protocol.model_package.layout import piece_name
from dllm_protocol.model_package.torrent import PieceHashes
from local_worker.packages.disk import sync_folder
from local_worker.packages.package import piece_path
from local_worker.packages.spans import hash_file, is_piece, store_spans

FETCHING_FOLDER: Final = "fetching"


def partial_path(package: Path, piece: Piece) -> Path:
    """Where a piece lies until all of it is there."""
    return package / FETCHING_FOLDER / piece.root.hex()


def clear_the_way(path: Path) -> None:
    """Remove anything that is no ordinary file of ours alone: a link could lead out of the package."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        path.unlink()


def give_name(package: Path, piece: Piece) -> PieceHashes:
    """Compare a piece that is whole by others' word by our own, then give it its name.

    Raises:
        PieceRefused: it is not what the manifest says; what lay there is gone.
    """
    partial = partial_path(package, piece)
    hashes = hash_file(partial, piece)
    if hashes is None or not is_piece(hashes, piece):
        partial.unlink(missing_ok=True)
        raise PieceRefused(
            f"piece {piece_name(piece.kind, piece.index)} came whole and is not what the manifest says",
            hint="the disk or the memory of this machine may be at fault; try again",
        )
    descriptor = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    store_spans(package, piece, hashes.spans())
    path = piece_path(package, piece)
    partial.replace(path)
    sync_folder(path.parent)
    return hashes
