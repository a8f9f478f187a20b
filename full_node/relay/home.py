"""A relay's folder. Nothing in it is needed again: a relay remembers nothing.

relay.json   where the running relay listens; gone when it stopped in order
relay.lock   held while it runs
logs/        rotating, one JSON object a line
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from full_node.files import make_private_folder
from full_node.relay.limits import RelayRefused


@dataclass(frozen=True, slots=True)
class RelayHome:
    """Paths inside a relay's folder."""

    folder: Path

    @property
    def listening(self) -> Path:
        """Where the running relay listens."""
        return self.folder / "relay.json"

    @property
    def lock(self) -> Path:
        """Held while it runs."""
        return self.folder / "relay.lock"

    @property
    def logs(self) -> Path:
        """Folder of the log files."""
        return self.folder / "logs"


@contextmanager
def held_relay(home: RelayHome) -> Iterator[None]:
    """Makes the folder and takes it for this process; the kernel lets go of it when the process ends.

    Raises:
        RelayRefused: another relay has it.
    """
    make_private_folder(home.folder)
    descriptor = os.open(home.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RelayRefused(f"another relay runs from {home.folder} already") from error
        yield
    finally:
        os.close(descriptor)
