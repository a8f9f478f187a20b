"""Writes a backup from files that lie still, and unpacks one into a new folder; whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from hashlib import file_digest
from pathlib import Path
from typing import BinaryIO

from dllm_chat.paths import make_private_folder, sync_folder
from dllm_chat.version import VERSION as VERSION_OF_PROGRAM
from dllm_protocol.backup import (
    PIECE_BYTES,
    VERSION,
    BackupFile,
    BackupManifest,
    read_backup,
    read_manifest,
    write_backup,
)
from dllm_protocol.errors import UsageRefused


class BackupRefused(UsageRefused):
    """A backup cannot be written or restored there."""

    code = "E_BACKUP_PLACE"


def pack(
    target: Path, kind: str, files: Mapping[str, Path], left_out: Sequence[str], made_ms: int
) -> BackupManifest:
    """Writes a backup (mode 0600) of these files, by their names in it; they must not change meanwhile.

    Raises:
        BackupRefused: the target is there already, or cannot be written.
    """
    if target.exists():
        raise BackupRefused(f"{target} is there already", hint="a backup never replaces another file")
    draft = target.with_name(f".{target.name}.new")
    try:
        entries = tuple(_entry(name, path) for name, path in sorted(files.items()))
        manifest = BackupManifest(
            VERSION, kind, VERSION_OF_PROGRAM, made_ms, entries, tuple(sorted(left_out))
        )
        draft.unlink(missing_ok=True)
        with _new_file(draft) as out:
            write_backup(manifest, lambda name: files[name].open("rb"), out.write)
        draft.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        raise BackupRefused(f"{target} cannot be written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return manifest


def unpack(source: Path, kind: str, folder: Path) -> BackupManifest:
    """Unpacks a backup into a folder that is made for it (0700, files 0600); durable on return.

    Raises:
        BackupDamaged: it is not the backup that was written.
        BackupRefused: it cannot be read, or the folder not be written.
    """
    made = {folder}

    def new_file(name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        place = folder / name
        for above in reversed(place.relative_to(folder).parents[:-1]):
            make_private_folder(folder / above)
            made.add(folder / above)
        return _new_file(place)

    try:
        if folder.exists():
            shutil.rmtree(folder)  # what an earlier try left
        make_private_folder(folder)
        with source.open("rb", buffering=PIECE_BYTES) as stream:
            manifest = read_backup(stream.read, kind, new_file)
        for one in made:
            sync_folder(one)
    except OSError as error:
        raise BackupRefused(f"{source} cannot be restored: {error}") from error
    return manifest


def look(source: Path, kind: str) -> BackupManifest:
    """What a backup says that it holds. Raises BackupDamaged, BackupRefused."""
    try:
        with source.open("rb") as stream:
            return read_manifest(stream.read, kind)
    except OSError as error:
        raise BackupRefused(f"{source} cannot be read: {error.strerror}") from error


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A private file to write, durable when it is left."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        yield out
        out.flush()
        os.fsync(out.fileno())


def _entry(name: str, path: Path) -> BackupFile:
    with path.open("rb") as content:
        digest = file_digest(content, "sha256").digest()
    return BackupFile(name, path.stat().st_size, digest)
