"""The node's log: one JSON object a line, rotating, readable by the owner only."""

from __future__ import annotations

import json
import logging
import os
from io import FileIO, TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from full_node.files import make_private_folder

FILE_BYTES = 5_000_000
FILES_KEPT = 3


class JsonLines(logging.Formatter):
    """Time, level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class PrivateRotatingFile(RotatingFileHandler):
    """A rotating file whose every generation has mode 0600."""

    def _open(self) -> TextIOWrapper:
        path = Path(self.baseFilename)
        return TextIOWrapper(FileIO(path, "a", opener=_private_opener), encoding=self.encoding)


def _private_opener(path: str | Path, flags: int) -> int:
    return os.open(path, flags, 0o600)


def log_to(folder: Path) -> None:
    """Sends everything that this process logs into `folder`/node.log."""
    make_private_folder(folder)
    handler = PrivateRotatingFile(
        folder / "node.log", maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8"
    )
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
