"""What of a person's home goes into a backup, and how it comes back.

In: configuration, wallets (sealed as they lie), address book, receipts, history, joined networks with what is trusted
of them, the sessions' ledgers, what a worker was promised. Out: every secret that lies open (a worker's keys, what
unseals a chat key, play wallets), and what makes itself anew.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from dllm_chat.backup.archive import BackupRefused, pack, unpack
from dllm_chat.paths import Paths, make_private_folder, sync_folder, write_private
from dllm_protocol.backup import BackupManifest
from light_node.sqlite_files import copy_database

KIND = "client"
CONFIG = "config.toml"
DATA = "data"
RESTORED = "restored"
"""A file in a worker's folder: its ledger is a copy from earlier, see `local_worker.restored`."""
WORKER = "worker"
_DATABASE_ENDINGS = (".db",)
_NOT_OURS_TO_KEEP = ("embedded", "devnet", "worker/status.json", "worker/lock", "worker/worker.log")
_MADE_OF_MODELS = re.compile(r"worker/(slices/[0-9]+/)?model/")
"""What a worker made of a model's file or package: as large as they are, and made anew at its next start."""
_WORKER_KEYS = "data/worker/keys.json"
_KEYS_OF_A_SLICE = re.compile(r"data/worker/slices/[0-9]+/keys\.json")
_OPEN_FILES = (_WORKER_KEYS, "data/publisher_key")
_OPEN_ENDINGS = (".wrap.json", "play_wallet.json", "token")


@dataclass(frozen=True, slots=True)
class Restored:
    """A home that was just restored."""

    manifest: BackupManifest
    has_worker: bool


def back_up(paths: Paths, target: Path) -> BackupManifest:
    """Writes a backup of the home, whatever runs in it meanwhile.

    Raises:
        BackupRefused: there is nothing to keep, or the target cannot be written.
    """
    folder = target.absolute().parent
    if not folder.is_dir():
        raise BackupRefused(f"{folder} is no folder")
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{target.name}.") as staging:
        try:
            files, left_out = _stage(paths, Path(staging))
        except sqlite3.Error as error:
            raise BackupRefused(f"a database of {paths.data} cannot be copied: {error}") from error
        if not files:
            raise BackupRefused(f"{paths.data} holds nothing yet", hint="is DLLM_HOME the one that you mean?")
        return pack(target, KIND, files, left_out, time.time_ns() // 1_000_000)


def restore(paths: Paths, source: Path) -> Restored:
    """Restores a backup into a home that holds nothing yet.

    Everything is unpacked and checked beside its place and takes it by one rename.

    Raises:
        BackupRefused: the home is not empty, or cannot be written.
        BackupDamaged: the file is not the backup that was written.
    """
    if paths.data.exists() and (not paths.data.is_dir() or any(paths.data.iterdir())):
        raise BackupRefused(
            f"{paths.data} is not empty", hint="restore into a new home: set DLLM_HOME to another folder"
        )
    make_private_folder(paths.data.parent)
    draft = paths.data.with_name(f".{paths.data.name}.restoring")
    try:
        manifest = unpack(source, KIND, draft)
        make_private_folder(draft / DATA)
        # Its keys may be put back later: then it must know that its ledger, or the lack of one, is from before.
        has_worker = (draft / DATA / WORKER).is_dir() or _WORKER_KEYS in manifest.left_out
        if has_worker:
            write_private(draft / DATA / WORKER / RESTORED, b"")
        _restore_config(paths, draft / CONFIG)
        if paths.data.exists():
            paths.data.rmdir()
        (draft / DATA).rename(paths.data)
        sync_folder(paths.data.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Restored(manifest, has_worker)


def _restore_config(paths: Paths, restored: Path) -> None:
    """Before the data, whose rename ends it all: done twice, where a crash came between, it does no harm."""
    if not restored.exists():
        return
    content = restored.read_bytes()
    if paths.config_file.exists() and paths.config_file.read_bytes() not in (b"", content):
        raise BackupRefused(
            f"{paths.config_file} is there already", hint="move it away, or restore into a new home"
        )
    write_private(paths.config_file, content)


def _stage(paths: Paths, staging: Path) -> tuple[dict[str, Path], list[str]]:
    """Copies that lie still, by their names in the backup, and the names of what stays out."""
    files: dict[str, Path] = {}
    left_out: list[str] = []
    found = [(CONFIG, paths.config_file)] if paths.config_file.is_file() else []
    found += [
        (f"{DATA}/{path.relative_to(paths.data).as_posix()}", path)
        for path in sorted(paths.data.rglob("*"))
        if path.is_file() and not path.is_symlink() and _is_kept(path.relative_to(paths.data).as_posix())
    ]
    for name, path in found:
        if _is_open_secret(name):
            left_out.append(name)
            continue
        copy = staging / str(len(files))
        try:
            if path.name.endswith(_DATABASE_ENDINGS):
                copy_database(path, copy)
            else:
                write_private(copy, path.read_bytes())
        except FileNotFoundError:
            continue  # removed since it was listed, as a running program may do
        files[name] = copy
    return files, left_out


def _is_kept(name: str) -> bool:
    last = name.rsplit("/", 1)[-1]
    if last.endswith(("-wal", "-shm", ".tmp", ".new", ".lock", ".log")) or "/locks/" in name:
        return False
    if _MADE_OF_MODELS.match(name):
        return False
    return not any(name == gone or name.startswith(f"{gone}/") for gone in _NOT_OURS_TO_KEEP)


def _is_open_secret(name: str) -> bool:
    """Whether a file's content alone would let a stranger act: no password stands before it."""
    is_of_a_slice = _KEYS_OF_A_SLICE.fullmatch(name) is not None
    return name in _OPEN_FILES or is_of_a_slice or name.endswith(_OPEN_ENDINGS)
