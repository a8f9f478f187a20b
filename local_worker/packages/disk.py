"""Writes that are whole or not there, and a full disk by its name."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from local_worker.packages.errors import DiskFull, OutputRefused

COPY_BYTES = 1 << 20
SPARE_BYTES = 1 << 20
"""Left free beside what is asked for: names and folders take room too."""
Progress = Callable[[str, int, int], None]
"""Called for each piece before it is written: its name, its number from 1 on, how many there are."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_room(folder: Path, needed: int) -> None:
    """Refuse to begin what cannot be ended.

    Raises:
        DiskFull: with what is free and what is needed.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise DiskFull(
            f"{needed} bytes are to be written to {folder}, {free} are free",
            hint="free some room there, or name another place with --out",
        )


@contextlib.contextmanager
def named_failures(path: Path) -> Iterator[None]:
    """Failures to write as leaves of the error tree.

    Raises:
        DiskFull: no room is left, or a quota or limit is reached.
        OutputRefused: any other reason of the system.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFull(
                f"no room was left while {path} was written: {os.strerror(error.errno)}",
                hint="free some room there, or name another place with --out",
            ) from error
        raise OutputRefused(f"{path} cannot be written: {error.strerror}") from error


def create_file(path: Path) -> int:
    """A new private file, or an emptied one, to write and to read."""
    flags = os.O_CREAT | os.O_RDWR | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte at the descriptor's place."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
