"""Where our files lie, and how they are written: private, whole, and one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dllm_protocol.errors import TimedOut, UsageRefused

PRIVATE_FILE_MODE = 0o600
PRIVATE_FOLDER_MODE = 0o700
STALE_TEMPORARY_S = 3600
_LOCK_POLL_S = 0.02


class BadHome(UsageRefused):
    """``DLLM_HOME`` does not name a folder that can be used."""

    code = "E_HOME"


class LockBusy(TimedOut):
    """Another process holds a file longer than we are willing to wait."""

    code = "E_BUSY"


@dataclass(frozen=True, slots=True)
class Paths:
    """The four folders that hold everything of ours, and what lies in them."""

    config: Path
    data: Path
    state: Path
    cache: Path

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def wallets(self) -> Path:
        """One folder a wallet."""
        return self.data / "wallets"

    @property
    def address_book(self) -> Path:
        return self.data / "address_book.json"

    @property
    def receipts(self) -> Path:
        return self.data / "receipts"

    @property
    def chats_db(self) -> Path:
        return self.data / "chats.db"

    @property
    def networks(self) -> Path:
        """One folder a network that was joined."""
        return self.data / "networks"

    @property
    def embedded(self) -> Path:
        """The embedded network: its node, its workers, its play wallet."""
        return self.data / "embedded"

    @property
    def devnet(self) -> Path:
        """The devnet that belongs to this home, unless it is given a folder of its own."""
        return self.data / "devnet"

    @property
    def light_db(self) -> Path:
        return self.state / "light.db"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def models(self) -> Path:
        return self.cache / "models"


def find_paths(home: Path | None = None) -> Paths:
    """The folders in force: under ``home``, else under ``DLLM_HOME``, else the XDG directories.

    Nothing is created. On macOS the XDG defaults (``~/.config`` …) are used as on Linux: that is where
    people look for the files of a command-line program.

    Raises:
        BadHome: ``DLLM_HOME`` names something that is not a folder.
    """
    named = os.environ.get("DLLM_HOME", "")
    if home is None and named:
        home = Path(named)
    if home is not None:
        root = Path(os.path.abspath(home.expanduser()))  # noqa: PTH100 - resolve() would follow links
        if root.exists() and not root.is_dir():
            raise BadHome(
                f"DLLM_HOME is {root}, which is not a folder", hint="name a folder or unset DLLM_HOME"
            )
        return Paths(root, root / "data", root / "state", root / "cache")
    if sys.platform == "win32":
        from platformdirs import PlatformDirs as Directories
    else:
        from platformdirs.unix import Unix as Directories
    found = Directories("dllm", appauthor=False)
    return Paths(found.user_config_path, found.user_data_path, found.user_state_path, found.user_cache_path)


def make_private_folder(path: Path) -> Path:
    """Create a folder and its missing parents with mode 0700, and tighten it if it is ours and wider."""
    _make_parents(path)
    status = path.stat()
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        path.chmod(PRIVATE_FOLDER_MODE)
    return path


def write_private(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` (mode 0600) so that a crash leaves the old file or the new one, whole.

    Written beside, synced, renamed, and the folder synced. Missing parents are created with mode 0700. What
    a killed writer left behind is swept away by a later write once it is an hour old.
    """
    _make_parents(path.parent)
    _sweep_stale(path)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, PRIVATE_FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names created, renamed or removed in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def file_lock(path: Path, *, timeout_s: float = 10.0) -> Iterator[None]:
    """Hold an exclusive lock on ``path``, an empty file of its own, against processes and threads alike.

    The kernel lets go of it when the holder dies. Blocks the calling thread; not for an event loop.

    Raises:
        LockBusy: still held by somebody else after ``timeout_s``.
    """
    _make_parents(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE_MODE)
    try:
        _acquire(descriptor, path, timeout_s)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise LockBusy(
                    f"{path} is still held by another process after {timeout_s:g} s",
                    hint="wait for the other dllm to finish, then try again",
                ) from error
            time.sleep(_LOCK_POLL_S)
        else:
            return


def _make_parents(folder: Path) -> None:
    """`Path.mkdir(parents=True)` gives parents the default mode; every folder we make is private."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for child in reversed(missing):
        child.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)


def _sweep_stale(path: Path) -> None:
    """Remove what killed writers of this very file left, sparing writers that are at work now."""
    oldest = time.time() - STALE_TEMPORARY_S
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # another process sweeps too
            if leftover.lstat().st_mtime < oldest:
                leftover.unlink()
