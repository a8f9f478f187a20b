"""Builds a chunk's file out of a package's pieces, each of which is compared with the manifest while it is copied."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from dllm_protocol.errors import VerificationFailed
from dllm_protocol.gguf.head import Head
from dllm_protocol.model_manifest import PIECE_FILE, PIECE_HEADER, Manifest, Piece, PieceRoot
from dllm_protocol.model_package.chunk import PieceKey, check_layers, is_tied, pieces_of_chunk, plan_chunk
from dllm_protocol.model_package.layout import ARCHITECTURE_KEY, piece_name
from local_worker.packages.disk import (
    COPY_BYTES,
    Progress,
    check_room,
    create_file,
    named_failures,
    sync_folder,
    write_all,
)
from local_worker.packages.errors import OutputRefused
from local_worker.packages.package import copy_piece_data, read_piece_head


def assemble(
    package: Path,
    manifest: Manifest,
    first: int,
    end: int,
    out: Path,
    progress: Progress | None = None,
) -> Piece:
    """Write the chunk [first, end) of a package's model to ``out``, whole or not at all; returns size and root of it.

    A file that stands there is replaced. Nothing of a piece that is not the manifest's is left behind.

    Args:
        progress: called for each piece before it is copied: its name, its number from 1 on, how many there are. What
            it raises ends the work.

    Raises:
        LayersRefused: the model has no such layers, or they cannot be one chunk.
        PieceRefused, PackageNotFound: a piece is not what the manifest says, or missing.
        DiskFull, OutputRefused: ``out`` cannot be written.
    """
    check_layers(manifest.layers, first, end)
    pieces = {(piece.kind, piece.index): piece for piece in manifest.pieces}
    heads: dict[PieceKey, Head] = {}
    raw_heads: dict[PieceKey, bytes] = {}

    def look_at(key: PieceKey) -> Head:
        heads[key], raw_heads[key] = read_piece_head(package, pieces[key])
        return heads[key]

    header = look_at((PIECE_HEADER, 0))
    _check_architecture(header, manifest)
    for key in pieces_of_chunk(manifest.layers, first, end, is_tied=is_tied(header)):
        if key not in heads:
            look_at(key)
    plan = plan_chunk(heads, manifest.layers, first, end)
    root = PieceRoot()
    with _new_file(out, plan.size_bytes) as descriptor:

        def put(data: bytes) -> None:
            root.update(data)
            write_all(descriptor, data)

        put(plan.raw_head)
        for number, part in enumerate(plan.parts, start=1):
            if part.piece is None:
                _skip(descriptor, part.size_bytes)
                for size_bytes in _portions(part.size_bytes):
                    root.update(bytes(size_bytes))
                continue
            if progress is not None:
                progress(piece_name(*part.piece), number, len(plan.parts))
            copy_piece_data(package, pieces[part.piece], raw_heads[part.piece], put)
    return Piece(PIECE_FILE, 0, root.size_bytes, root.root())


def _check_architecture(header: Head, manifest: Manifest) -> None:
    value = header.metadata.get(ARCHITECTURE_KEY)
    said = value.text(ARCHITECTURE_KEY) if value is not None else ""
    if said != manifest.architecture:
        raise VerificationFailed(
            f"the header piece is of architecture {said[:64]!r}, the manifest says {manifest.architecture!r}"
        )


@contextlib.contextmanager
def _new_file(out: Path, size_bytes: int) -> Iterator[int]:
    """A file that stands under its name once all of it is there and safe, and else is gone."""
    if out.is_dir():
        raise OutputRefused(f"{out} is a folder", hint="name a file with --out")
    partial = out.with_name(f".{out.name}.new")
    with named_failures(out):
        check_room(out.parent, size_bytes)
        descriptor = create_file(partial)
        try:
            try:
                yield descriptor
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            partial.replace(out)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(out.parent)


def _portions(size_bytes: int) -> Iterator[int]:
    while size_bytes > 0:
        yield min(size_bytes, COPY_BYTES)
        size_bytes -= COPY_BYTES


def _skip(descriptor: int, count: int) -> None:
    """Zeros as a hole: they take room neither on the disk nor, until somebody reads them, in memory."""
    end = os.lseek(descriptor, 0, os.SEEK_CUR) + count
    os.ftruncate(descriptor, end)
    os.lseek(descriptor, end, os.SEEK_SET)
