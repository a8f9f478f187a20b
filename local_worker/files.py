"""The worker's home: private, whole after any crash, and one worker at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from local_worker.errors import HomeBusy, HomeRefused

LOCK_TRIES = 4
LOCK_PAUSE_S = 0.05


def write_private(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace a file (0600) so that old or new content is there at any time; ``durable``: also after a power cut."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(
        temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def make_home(home: Path) -> None:
    """Create the folder (0700) where it is missing; tighten it where it is wider.

    Raises:
        HomeRefused: something else is there, or somebody else's folder.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = home.stat()
    if not home.is_dir() or status.st_uid != os.geteuid():
        raise HomeRefused(f"{home} belongs to user {status.st_uid}, this is user {os.geteuid()}")
    if status.st_mode & 0o077:
        home.chmod(0o700)


@contextlib.contextmanager
def locked_home(home: Path) -> Iterator[None]:
    """Hold the home for one running worker; the lock goes with the process, however it ends.

    Raises:
        HomeBusy: another one runs there.
    """
    descriptor = os.open(home / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, home)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, home: Path) -> None:
    """Who only looks whether a worker runs holds the lock for a moment: wait that moment."""
    for left in reversed(range(LOCK_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if not left:
                raise HomeBusy(
                    f"a worker runs in {home} already", hint="stop it first, or use another home"
                ) from error
        time.sleep(LOCK_PAUSE_S)


def is_running(home: Path) -> bool:
    """Whether a worker holds the home now."""
    if not (home / "lock").exists():
        return False
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
