"""Fetches the pieces of some layers into a package, and nothing else.

PACKAGE/fetching/ROOT   bytes of a piece that is not whole; what is right of them is kept by the next fetch
PACKAGE/pieces/ROOT     a piece, which got this name when all of it had been compared with the manifest
PACKAGE/manifest        written once all pieces that were asked for are there
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dllm_protocol.errors import VerificationFailed
from dllm_protocol.model_manifest import PIECE_HEADER, Manifest, Piece, manifest_hash, probe_of
from dllm_protocol.model_package.chunk import PieceKey, check_layers, is_tied, pieces_of_chunk
from dllm_protocol.model_package.torrent import span_bytes
from local_worker.packages.disk import check_room, create_file, named_failures, sync_folder, write_all
from local_worker.packages.errors import OutputRefused
from local_worker.packages.package import (
    MANIFEST_FILE,
    PIECES_FOLDER,
    check_chunked,
    load_package,
    piece_path,
    read_piece_head,
)
from local_worker.packages.spans import hash_file, is_piece, read_spans, store_spans
from local_worker.swarm.downloading import Downloading, Progress
from local_worker.swarm.partial_files import FETCHING_FOLDER, partial_path
from local_worker.swarm.sources import Sources
from local_worker.swarm.swarm import Swarm


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch came to.

    Attributes:
        piece_count: that are there now, of those that were asked for.
        size_bytes: of these.
        kept_bytes: of these, which were there before.
        fetched_bytes: that came over the network, wrong ones and those that came twice among them.
        wasted_bytes: of those, which were wrong or came twice.
        refused: sources that sent what the manifest does not name, or had nothing, and in which words.
    """

    piece_count: int
    size_bytes: int
    kept_bytes: int
    fetched_bytes: int
    wasted_bytes: int
    refused: dict[str, str]


def fetch(
    swarm: Swarm,
    manifest: Manifest,
    first: int,
    end: int,
    package: Path,
    sources: Sources,
    idle_s: float,
    progress: Progress,
    *,
    header_only: bool = False,
) -> Fetched:
    """Have all pieces of the layers [first, end) in a package, compared with the manifest to the byte.

    Pieces that are there are compared too, and fetched again where they are not right. While it lasts, what is there is
    served to others, if the swarm listens.

    Args:
        manifest: believed; whoever calls has a proof of it, or its hash.
        sources: who may have the pieces; they are believed nothing.
        idle_s: how long to wait while nothing comes.
        header_only: the header piece and no other, whatever the layers: it says what a layer takes.

    Raises:
        LayersRefused: the model has no such layers.
        VerificationFailed: the package is another model's, or the manifest not one of a model in pieces.
        PieceRefused: a piece that fits the manifest, and is none.
        NoSourceLeft, SourcesLied, FetchStalled: why a piece did not come.
        DiskFull, OutputRefused: why it could not be written.
    """
    check_chunked(manifest)
    check_layers(manifest.layers, first, end)
    _check_can_travel(manifest)
    by_key = {(piece.kind, piece.index): piece for piece in manifest.pieces}
    with named_failures(package), _only_one(package, manifest):
        fetching = _Fetching(swarm, package, Downloading(swarm, package, sources, idle_s, progress))
        header: list[PieceKey] = [(PIECE_HEADER, 0)]
        fetching.have([by_key[key] for key in header])
        # Which pieces the last layers need is said by the header.
        tied = is_tied(read_piece_head(package, by_key[header[0]])[0])
        keys = header if header_only else pieces_of_chunk(manifest.layers, first, end, is_tied=tied)
        wanted = [by_key[key] for key in keys]
        probe = probe_of(manifest)
        wanted += [probe] if probe is not None and not header_only else []
        fetching.have([piece for piece in wanted if piece.kind != PIECE_HEADER])
        _write_manifest(package, manifest)
        with contextlib.suppress(OSError):  # pieces of other layers, half there, may wait in it
            (package / FETCHING_FOLDER).rmdir()
    return fetching.result(wanted)


def _check_can_travel(manifest: Manifest) -> None:
    sizes: dict[bytes, int] = {}
    for piece in manifest.pieces:
        span_bytes(piece.size_bytes)
        if sizes.setdefault(piece.root, piece.size_bytes) != piece.size_bytes:
            raise VerificationFailed(
                f"the manifest of {manifest.name} has pieces of {sizes[piece.root]} and {piece.size_bytes} bytes "
                f"with one root, {piece.root.hex()}"
            )


class _Fetching:
    def __init__(self, swarm: Swarm, package: Path, downloading: Downloading) -> None:
        self._swarm = swarm
        self._package = package
        self._downloading = downloading
        self._kept_bytes = 0

    def have(self, pieces: list[Piece]) -> None:
        """Keep what is right, fetch the rest."""
        by_root = {piece.root: piece for piece in pieces}
        missing = [piece for piece in by_root.values() if not self._keep(piece)]
        on_disk = sum(_allocated(partial_path(self._package, piece)) for piece in missing)
        check_room(self._package, max(0, sum(piece.size_bytes for piece in missing) - on_disk))
        self._downloading.run(missing)

    def _keep(self, piece: Piece) -> bool:
        path = piece_path(self._package, piece)
        hashes = hash_file(path, piece)
        if hashes is None or not is_piece(hashes, piece):
            # Whatever stands there is not the piece, and would be in its way.
            path.unlink(missing_ok=True)
            return False
        if read_spans(self._package, piece) is None:
            store_spans(self._package, piece, hashes.spans())
        self._kept_bytes += piece.size_bytes
        if self._swarm.listens_at is not None and not self._swarm.holds(piece):
            self._swarm.seed(piece, path.parent, hashes.spans())
        return True

    def result(self, wanted: list[Piece]) -> Fetched:
        done = self._downloading
        return Fetched(
            piece_count=len(wanted),
            size_bytes=sum(piece.size_bytes for piece in wanted),
            kept_bytes=self._kept_bytes,
            fetched_bytes=done.fetched_bytes,
            wasted_bytes=done.wasted_bytes,
            refused=dict(sorted(done.refused.items())),
        )


def _allocated(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def _only_one(package: Path, manifest: Manifest) -> Iterator[None]:
    """The package's folder, which no other fetch fills; the lock goes with the process, however it ends."""
    package.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(package, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputRefused(
                f"another fetch is filling {package}", hint="wait for it, or name another place with --out"
            ) from error
        _check_place(package, manifest)
        for folder in (PIECES_FOLDER, FETCHING_FOLDER):
            (package / folder).mkdir(mode=0o700, exist_ok=True)
            if not stat.S_ISDIR((package / folder).lstat().st_mode):
                raise OutputRefused(f"{package / folder} is a link", hint="name another place with --out")
        yield
    finally:
        os.close(descriptor)


def _check_place(package: Path, manifest: Manifest) -> None:
    """An empty folder, this model's package, or one that a fetch began."""
    if (package / MANIFEST_FILE).exists():
        load_package(package, manifest_hash(manifest))
    elif any(one.name not in (PIECES_FOLDER, FETCHING_FOLDER, "spans") for one in package.iterdir()):
        raise OutputRefused(
            f"{package} has other things in it", hint="name an empty folder, or a package of this model"
        )


def _write_manifest(package: Path, manifest: Manifest) -> None:
    path = package / MANIFEST_FILE
    if path.exists():
        return
    partial = package / FETCHING_FOLDER / MANIFEST_FILE
    descriptor = create_file(partial)
    try:
        write_all(descriptor, manifest.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    partial.replace(path)
    sync_folder(package)
