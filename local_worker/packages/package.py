"""A package on disk: a folder with a manifest and the pieces that it names.

PACKAGE/manifest        the model's manifest, canonical bytes; written last, so a package without one is none
PACKAGE/pieces/ROOT     one file a piece, named by its root in hexadecimal
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from dllm_protocol.errors import VerificationFailed
from dllm_protocol.gguf.head import Head
from dllm_protocol.gguf.reading import read_head
from dllm_protocol.model_manifest import (
    PIECE_FILE,
    PIECE_PROBE,
    Manifest,
    Piece,
    PieceRoot,
    is_cut_in_order,
    manifest_hash,
    version_for,
)
from dllm_protocol.model_package.errors import PieceRefused
from dllm_protocol.model_package.layout import check_piece, piece_name
from dllm_protocol.model_package.probe import probe_shape
from local_worker.packages.disk import COPY_BYTES
from local_worker.packages.errors import PackageNotFound

MANIFEST_FILE: Final = "manifest"
PIECES_FOLDER: Final = "pieces"
MAX_MANIFEST_BYTES: Final = 1 << 20


def piece_path(package: Path, piece: Piece) -> Path:
    """Where a piece lies."""
    return package / PIECES_FOLDER / piece.root.hex()


def load_package(package: Path, expected_hash: bytes | None = None) -> Manifest:
    """A package's manifest.

    Args:
        expected_hash: what its hash must be, where the caller knows.

    Raises:
        PackageNotFound: no package is there.
        MalformedBytes: the manifest is not canonical.
        VerificationFailed: it is another model's, or not that of a model in pieces.
    """
    return load_manifest(package / MANIFEST_FILE, expected_hash)


def load_manifest(path: Path, expected_hash: bytes | None = None) -> Manifest:
    """The manifest in a file: a package's, or one that lies alone.

    Raises:
        As `load_package`.
    """
    try:
        # Not waiting for a writer: a pipe in the place of a manifest is read as what is in it now.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            raw = file.read(MAX_MANIFEST_BYTES)
    except OSError as error:
        what = (
            f"{path.parent} is no package: its manifest cannot be read"
            if path.name == MANIFEST_FILE
            else f"{path} cannot be read"
        )
        raise PackageNotFound(
            f"{what} ({error.strerror})",
            hint="dllm model pack FILE.gguf makes one",
        ) from error
    manifest = Manifest.decode(raw)
    found = manifest_hash(manifest)
    if expected_hash is not None and found != expected_hash:
        called = path.parent if path.name == MANIFEST_FILE else path
        raise VerificationFailed(f"{called} has manifest {found.hex()}, {expected_hash.hex()} was wanted")
    check_chunked(manifest)
    return manifest


def check_chunked(manifest: Manifest) -> None:
    """Refuse a manifest that is not one of a model in pieces.

    Raises:
        VerificationFailed: naming what it has.
    """
    if not manifest.layers or not is_cut_in_order(manifest):
        order = [(piece.kind, piece.index) for piece in manifest.pieces]
        whole = "one whole file" if order == [(PIECE_FILE, 0)] else f"{len(order)} pieces in another order"
        raise VerificationFailed(
            f"the manifest of {manifest.name} is not that of a model in pieces: it has {whole}"
        )
    if manifest.version != version_for(manifest.pieces):
        raise VerificationFailed(
            f"the manifest of {manifest.name} has version {manifest.version}, with its pieces it is to have "
            f"{version_for(manifest.pieces)}"
        )


def read_piece_head(package: Path, piece: Piece) -> tuple[Head, bytes]:
    """A piece's head and the bytes that it is made of, in its canonical form; not to be believed before
    `copy_piece_data` has compared the whole piece with the manifest.

    Raises:
        PackageNotFound: the piece is missing.
        MalformedBytes, PieceRefused: it is no such piece.
    """
    with _opened(package, piece) as file:
        head = read_head(lambda count: _portion(package, piece, file, count), piece.size_bytes)
        file.seek(0)
        raw = _portion(package, piece, file, head.data_start)
    check_piece(head, raw, piece.kind, piece.index)
    if piece.kind == PIECE_PROBE:
        probe_shape(head)
    if head.size_bytes != piece.size_bytes:
        raise PieceRefused(
            f"piece {_name(piece)} has {head.size_bytes} bytes by its head, {piece.size_bytes} by the manifest"
        )
    return head, raw


def copy_piece_data(package: Path, piece: Piece, raw_head: bytes, write: Callable[[bytes], None]) -> None:
    """Give a piece's data away in portions, hashing all of the piece; what was given away is only to be used if this
    returns.

    Raises:
        PackageNotFound: the piece is missing.
        PieceRefused: its bytes are not what the manifest says, or its head is not the one that was read before.
    """
    root = PieceRoot()
    with _opened(package, piece) as file:
        head = _portion(package, piece, file, len(raw_head))
        root.update(head)
        if head != raw_head:
            raise PieceRefused(f"the head of piece {_name(piece)} changed while it was read")
        while data := _portion(package, piece, file, COPY_BYTES):
            root.update(data)
            if root.size_bytes > piece.size_bytes:
                break
            write(data)
    _compare(package, piece, root)


def verify_piece(package: Path, piece: Piece) -> None:
    """Compare a piece with the manifest, head and all.

    Raises:
        As `copy_piece_data` and `read_piece_head`.
    """
    root = PieceRoot()
    with _opened(package, piece) as file:
        while (data := _portion(package, piece, file, COPY_BYTES)) and root.size_bytes <= piece.size_bytes:
            root.update(data)
    _compare(package, piece, root)
    read_piece_head(package, piece)


def _compare(package: Path, piece: Piece, root: PieceRoot) -> None:
    found = root.root()
    if (root.size_bytes, found) != (piece.size_bytes, piece.root):
        raise PieceRefused(
            f"piece {_name(piece)} has root {found.hex()} over {root.size_bytes} bytes, "
            f"the manifest says {piece.root.hex()} over {piece.size_bytes}",
            hint=f"fetch it again: {piece_path(package, piece)}",
        )


@contextlib.contextmanager
def _opened(package: Path, piece: Piece) -> Iterator[BinaryIO]:
    path = piece_path(package, piece)
    try:
        # A link could lead out of the package, and a pipe would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise PackageNotFound(
            f"piece {_name(piece)} cannot be read: {error.strerror}", hint=f"it is to be {path}"
        ) from error
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != piece.size_bytes:
            raise PieceRefused(
                f"piece {_name(piece)} has {status.st_size} bytes, the manifest says {piece.size_bytes}",
                hint=f"fetch it again: {path}",
            )
        yield stack.enter_context(os.fdopen(descriptor, "rb", closefd=False))


def _portion(package: Path, piece: Piece, file: BinaryIO, count: int) -> bytes:
    try:
        return file.read(count)
    except OSError as error:
        raise PackageNotFound(
            f"piece {_name(piece)} cannot be read: {error.strerror}",
            hint=f"fetch it again: {piece_path(package, piece)}",
        ) from error


def _name(piece: Piece) -> str:
    return piece_name(piece.kind, piece.index)
