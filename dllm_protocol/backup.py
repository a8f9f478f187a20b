"""The form of a backup: a list of files with their hashes, and then the files [format].

    "DLLM backup 1\\n" ‖ length of the manifest (8, big endian) ‖ manifest ‖ sha256(manifest) ‖ contents in its order

Pure: where the bytes come from and go to is the caller's affair. A backup holds no secret that is not sealed already;
the hashes find damage, they do not say who made it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import sha256
from string import printable
from typing import Protocol

from dllm_protocol.encoding import (
    HASH,
    NAME,
    U64,
    FormatVersion,
    ListOf,
    Nested,
    Record,
    Text,
    record,
    wire,
)
from dllm_protocol.errors import MalformedBytes, VerificationFailed

MAGIC = b"DLLM backup 1\n"
VERSION = 1
FILES_MAX = 200_000
MANIFEST_BYTES_MAX = 64 << 20
NAME_BYTES_MAX = 512
PIECE_BYTES = 1 << 20
_DIGEST_BYTES = 32
_LENGTH_BYTES = 8
_FILE_NAME = Text(NAME_BYTES_MAX, frozenset(printable) - frozenset("\\\t\n\r\x0b\x0c"), minimum=1)
Read = Callable[[int], bytes]
"""At most so many of the next bytes; fewer only at the end."""
Write = Callable[[bytes], object]


class Readable(Protocol):
    """An open file to read from."""

    def read(self, size: int, /) -> bytes: ...


class Writable(Protocol):
    """An open file to write to."""

    def write(self, data: bytes, /) -> object: ...


class BackupDamaged(VerificationFailed):
    """The file is not the backup that was written."""

    code = "E_BACKUP"


@record
class BackupFile(Record):
    """One file of a backup."""

    name: str = wire(1, _FILE_NAME)
    """Relative, with ``/`` between its parts."""
    size: int = wire(2, U64)
    hash: bytes = wire(3, HASH)
    """SHA-256 of the content."""


@record
class BackupManifest(Record):
    """What a backup holds."""

    version: int = wire(1, FormatVersion(VERSION, minimum=VERSION))
    kind: str = wire(2, NAME)
    """Whose home: ``client`` or ``node``."""
    program: str = wire(3, Text(64))
    """Version of the program that wrote it."""
    made_ms: int = wire(4, U64)
    files: tuple[BackupFile, ...] = wire(5, ListOf(Nested(BackupFile), FILES_MAX))
    left_out: tuple[str, ...] = wire(6, ListOf(_FILE_NAME, FILES_MAX))
    """Secrets and what can be fetched again: names of files that lay there and are not in the backup."""


def is_safe_name(name: str) -> bool:
    """Whether a name stays inside the folder that it is unpacked into."""
    return all(part not in ("", ".", "..") for part in name.split("/"))


def write_backup(
    manifest: BackupManifest, content_of: Callable[[str], AbstractContextManager[Readable]], write: Write
) -> None:
    """Writes a backup; `content_of` opens a file by its name.

    Raises:
        MalformedBytes: a name or a number does not fit the form.
        BackupDamaged: a content is not the one that the manifest says.
    """
    write(_header(manifest))
    for entry in manifest.files:
        with content_of(entry.name) as content:
            _copy_content(content.read, entry, write)


def read_backup(
    read: Read, kind: str, new_file: Callable[[str], AbstractContextManager[Writable]]
) -> BackupManifest:
    """Reads a backup of a kind; `new_file` makes a file by its name, which stays inside the folder.

    Raises:
        BackupDamaged: not such a backup, or damaged; what was made until then is worth nothing.
    """
    manifest = read_manifest(read, kind)
    for entry in manifest.files:
        with new_file(entry.name) as out:
            _copy_content(read, entry, out.write)
    if read(1):
        raise BackupDamaged("bytes follow behind the last file")
    return manifest


def _header(manifest: BackupManifest) -> bytes:
    encoded = manifest.encode()
    return MAGIC + len(encoded).to_bytes(_LENGTH_BYTES, "big") + encoded + sha256(encoded).digest()


def read_manifest(read: Read, kind: str) -> BackupManifest:
    """The manifest of a backup of that kind, after which its contents follow.

    Raises:
        BackupDamaged: not a backup, of another kind, of a newer version, damaged, or one that reaches outside.
    """
    if read(len(MAGIC)) != MAGIC:
        raise BackupDamaged("this is no backup of version 1", hint="was it written by a newer program?")
    length = int.from_bytes(_exactly(read, _LENGTH_BYTES), "big")
    if length > MANIFEST_BYTES_MAX:
        raise BackupDamaged(f"the list of files has {length} bytes, at most {MANIFEST_BYTES_MAX} are read")
    encoded = _exactly(read, length)
    if _exactly(read, _DIGEST_BYTES) != sha256(encoded).digest():
        raise BackupDamaged("the list of files is damaged")
    try:
        manifest = BackupManifest.decode(encoded)
    except MalformedBytes as error:
        raise BackupDamaged(f"the list of files cannot be read: {error.message}") from error
    if manifest.kind != kind:
        raise BackupDamaged(f"this is the backup of a {manifest.kind}, wanted is one of a {kind}")
    names = [one.name for one in manifest.files]
    for name in names:
        if not is_safe_name(name):
            raise BackupDamaged(f"{name!r} would lie outside the folder")
    if len(set(names)) != len(names):
        raise BackupDamaged("a file stands in it twice")
    return manifest


def _copy_content(read: Read, entry: BackupFile, write: Write) -> None:
    """Moves one file's content, which must be the promised one. Raises BackupDamaged."""
    left, digest = entry.size, sha256()
    while left:
        piece = read(min(left, PIECE_BYTES))
        if not piece:
            raise BackupDamaged(f"the backup ends within {entry.name}, {left} bytes early")
        digest.update(piece)
        write(piece)
        left -= len(piece)
    if digest.digest() != entry.hash:
        raise BackupDamaged(f"{entry.name} is damaged: its hash is another")


def _exactly(read: Read, size: int) -> bytes:
    found = bytearray()
    while len(found) < size and (piece := read(min(size - len(found), PIECE_BYTES))):
        found += piece
    if len(found) != size:
        raise BackupDamaged(f"the backup ends {size - len(found)} bytes early")
    return bytes(found)
