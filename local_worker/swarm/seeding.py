"""Serves the pieces of packages to whoever asks for them, until told to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dllm_protocol.model_manifest import Piece
from dllm_protocol.model_package.errors import PieceRefused
from dllm_protocol.model_package.layout import piece_name
from local_worker.packages.disk import named_failures
from local_worker.packages.package import load_package, piece_path
from local_worker.packages.spans import hash_file, is_piece, read_spans, store_spans
from local_worker.swarm.downloading import Progress
from local_worker.swarm.errors import NothingToSeed
from local_worker.swarm.swarm import Event, Happened, Swarm

PACKAGES_MAX: Final = 64
POLL_MS: Final = 200
LOOKS_BETWEEN: Final = 50
"""Polls between two looks for pieces that have come since: ten seconds."""


@dataclass(frozen=True, slots=True)
class Seeding:
    """What is served now."""

    piece_count: int
    size_bytes: int


class Seeder:
    """Packages that are served. A piece that is not there is no error: a package may hold some layers only."""

    def __init__(self, swarm: Swarm, packages: Sequence[Path], progress: Progress) -> None:
        self._swarm = swarm
        self._progress = progress
        self._packages = list(packages)
        self._served: dict[bytes, tuple[Path, Piece]] = {}
        self._damaged: dict[bytes, tuple[int, int]] = {}
        """By root, which file it was: one that is put in its place is looked at anew."""

    def look(self) -> Seeding:
        """Begin to serve what has come since the last look.

        Raises:
            PackageNotFound, MalformedBytes, VerificationFailed: a folder is no package.
            DiskFull, OutputRefused: hashes of spans that were missing cannot be kept beside the pieces.
        """
        for package in self._packages:
            manifest = load_package(package)
            for piece in manifest.pieces:
                self._serve(package, piece)
        return Seeding(len(self._served), sum(piece.size_bytes for _, piece in self._served.values()))

    def run(self, is_told_to_stop: Callable[[], bool]) -> None:
        """Serve until told to stop; returns when nothing is open any more.

        Raises:
            As `look`.
        """
        looks = 0
        while not is_told_to_stop():
            for event in self._swarm.poll(POLL_MS):
                self._take(event)
            looks += 1
            if looks % LOOKS_BETWEEN == 0:
                self.look()

    def _serve(self, package: Path, piece: Piece) -> None:
        path = piece_path(package, piece)
        if self._swarm.holds(piece) or not _has_size(path, piece) or self._is_damaged(path, piece):
            return
        spans = read_spans(package, piece)
        if spans is None:
            hashes = hash_file(path, piece)
            if hashes is None or not is_piece(hashes, piece):
                self._not_served(path, piece, "it is not what the manifest says")
                return
            spans = hashes.spans()
            with named_failures(package):
                store_spans(package, piece, spans)
        try:
            self._swarm.seed(piece, path.parent, spans)
        except PieceRefused as error:
            self._not_served(path, piece, error.message)
            return
        self._served[piece.root] = (path, piece)

    def _is_damaged(self, path: Path, piece: Piece) -> bool:
        return self._damaged.get(piece.root) == _file_of(path)

    def _take(self, event: Event) -> None:
        if event.root in self._served and event.kind in (Happened.DAMAGED, Happened.DISK):
            path, piece = self._served.pop(event.root)
            self._swarm.let_go(piece)
            self._not_served(path, piece, event.reason)

    def _not_served(self, path: Path, piece: Piece, reason: str) -> None:
        self._damaged[piece.root] = _file_of(path)
        name = piece_name(piece.kind, piece.index)
        self._progress(f"not served: piece {name}, {path}: {reason}; dllm model fetch repairs it")


def check_packages(packages: Sequence[Path]) -> None:
    """Refuse none, and too many.

    Raises:
        NothingToSeed: naming how many.
    """
    if not 1 <= len(packages) <= PACKAGES_MAX:
        raise NothingToSeed(f"{len(packages)} packages are named, 1 to {PACKAGES_MAX} can be served")


def _has_size(path: Path, piece: Piece) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return path.is_file() and not path.is_symlink() and status.st_size == piece.size_bytes


def _file_of(path: Path) -> tuple[int, int]:
    try:
        status = path.lstat()
    except OSError:
        return (0, 0)
    return status.st_ino, status.st_mtime_ns
