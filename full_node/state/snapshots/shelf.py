"""Snapshots on disk: a folder for each height with the manifest and the packed chunks.

A snapshot is written beside its place under a name that is never served and takes its place by one rename, so
what is listed is whole after any crash. Leftovers of a crash are removed when the shelf is opened.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dllm_protocol.errors import MalformedBytes
from full_node.files import make_private_folder, sync_folder
from full_node.state.snapshots.format import PACKED_BYTES_MAX, Manifest, Snapshot, describe

MANIFEST = "manifest"
_UNFINISHED = ".new-"
_REMOVED = ".old-"


class SnapshotWriter:
    """One snapshot on its way to the shelf."""

    def __init__(self, folder: Path, height: int) -> None:
        self._place = folder / str(height)
        self._draft = folder / f"{_UNFINISHED}{height}"
        if self._draft.exists():
            shutil.rmtree(self._draft)
        make_private_folder(self._draft)

    def add(self, index: int, packed: bytes) -> None:
        """Keeps a chunk."""
        _write(self._draft / str(index), packed)

    def finish(self, manifest: Manifest) -> None:
        """Puts the snapshot on the shelf, durable on return."""
        _write(self._draft / MANIFEST, manifest.encode())
        sync_folder(self._draft)
        self._draft.rename(self._place)
        sync_folder(self._place.parent)

    def abandon(self) -> None:
        """Forgets what was written."""
        shutil.rmtree(self._draft, ignore_errors=True)


class Shelf:
    """The folder of a node's snapshots; one thread writes, any thread reads."""

    def __init__(self, folder: Path) -> None:
        """Opens or creates the folder (0700)."""
        self._folder = folder
        make_private_folder(folder)
        for leftover in (*folder.glob(f"{_UNFINISHED}*"), *folder.glob(f"{_REMOVED}*")):
            shutil.rmtree(leftover)

    def heights(self) -> list[int]:
        """Heights of the snapshots that are there, newest first."""
        return sorted((int(one.name) for one in self._folder.iterdir() if one.name.isdecimal()), reverse=True)

    def list(self) -> list[Snapshot]:
        """The snapshots that are there, newest first; a damaged one is passed over."""
        found = []
        for height in self.heights():
            try:
                manifest = Manifest.decode((self._folder / str(height) / MANIFEST).read_bytes())
            except (FileNotFoundError, MalformedBytes):
                # Removed between the look and the read, or damaged: nobody is to be offered it.
                continue
            found.append(describe(manifest))
        return found

    def chunk(self, height: int, index: int) -> bytes:
        """A packed chunk; empty where there is none (any more), as ABCI answers then."""
        try:
            with (self._folder / str(height) / str(index)).open("rb") as file:
                return file.read(PACKED_BYTES_MAX)
        except FileNotFoundError:
            return b""

    def begin(self, height: int) -> SnapshotWriter:
        """Where a new snapshot is written."""
        return SnapshotWriter(self._folder, height)

    def keep_newest(self, count: int) -> None:
        """Removes all but the newest `count` snapshots."""
        for height in self.heights()[count:]:
            going = self._folder / f"{_REMOVED}{height}"
            (self._folder / str(height)).rename(going)
            shutil.rmtree(going)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
