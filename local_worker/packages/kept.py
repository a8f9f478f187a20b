"""What a worker keeps of a model between its starts: a package of its own making, and the chunk that it serves.

FOLDER/package/     the package that a file was cut into      FOLDER/package.json  of which file, with which terms
FOLDER/chunk.gguf   the chunk                                 FOLDER/chunk.json    of which manifest, which layers

A record is written after the thing that it speaks of, and removed before: what has none is not whole, and is made anew.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

from dllm_protocol.errors import UsageRefused
from dllm_protocol.model_manifest import Manifest, Piece, manifest_hash
from local_worker.files import make_home, write_private
from local_worker.model_files import file_piece
from local_worker.packages.assembling import assemble
from local_worker.packages.disk import Progress
from local_worker.packages.package import load_package
from local_worker.packages.packing import ManifestTerms, pack
from local_worker.packages.sources import part_paths

CHUNK_FILE: Final = "chunk.gguf"
_CHUNK_RECORD: Final = "chunk.json"
_PACKAGE: Final = "package"
_PACKAGE_RECORD: Final = "package.json"
_MAX_RECORD_BYTES: Final = 1 << 20


def kept_chunk(
    folder: Path, package: Path, manifest: Manifest, first: int, end: int, progress: Progress
) -> Path:
    """The chunk [first, end) as a file of the folder: the one that lies there if it is that one to the byte, else
    assembled. Another chunk that lay there is removed first, so that there need not be room for both.

    Raises:
        As `assemble`.
    """
    make_home(folder)
    path, record = folder / CHUNK_FILE, folder / _CHUNK_RECORD
    wanted = {"manifest_hash": manifest_hash(manifest).hex(), "first_layer": first, "end_layer": end}
    if _is_kept(path, record, wanted):
        return path
    record.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    made = assemble(package, manifest, first, end, path, progress)
    _write(record, wanted | _named(made))
    return path


def kept_package(folder: Path, model: Path, terms: ManifestTerms, progress: Progress) -> Path:
    """The package of a model's file, in the folder: the one that lies there if it was made of this very file with
    these terms, else packed. Another package that lay there is removed first.

    Raises:
        As `pack`.
    """
    make_home(folder)
    package, record = folder / _PACKAGE, folder / _PACKAGE_RECORD
    wanted = _source(model) | {"name": terms.name, "chat_template": terms.chat_template or ""}
    if package.is_dir() and _read(record) == wanted:
        load_package(package)
        return package
    record.unlink(missing_ok=True)
    if package.exists():
        shutil.rmtree(package)
    pack(model, package, terms, progress)
    _write(record, wanted)
    return package


def _is_kept(path: Path, record: Path, wanted: dict[str, Any]) -> bool:
    said = _read(record)
    if said is None or any(said.get(name) != value for name, value in wanted.items()):
        return False
    try:
        if path.stat().st_size != said.get("size_bytes"):
            return False
        return _named(file_piece(path)).items() <= said.items()
    except OSError:
        return False


def _named(piece: Piece) -> dict[str, Any]:
    return {"size_bytes": piece.size_bytes, "root": piece.root.hex()}


def _source(model: Path) -> dict[str, Any]:
    """A model's files as the system knows them: another size or time is another model."""
    parts = []
    for path in part_paths(model):
        try:
            status = path.stat()
        except OSError as error:
            raise UsageRefused(f"{path} cannot be read: {error.strerror}") from error
        parts.append([os.fspath(path.absolute()), status.st_size, status.st_mtime_ns])
    return {"parts": parts}


def _write(record: Path, content: dict[str, Any]) -> None:
    write_private(record, (json.dumps(content) + "\n").encode())


def _read(record: Path) -> dict[str, Any] | None:
    """What a record says; None where there is none that can be read."""
    try:
        with record.open("rb") as file:
            found = json.loads(file.read(_MAX_RECORD_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
