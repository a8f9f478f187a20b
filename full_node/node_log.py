"""The log of a node or faucet: one entry a line (see docs/operating/logs.md), rotating, readable by the owner only."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from io import FileIO, TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from dllm_protocol.log_lines import VALUE_CHARACTERS_MAX, LogForm, log_form, log_level, log_line
from full_node.files import make_private_folder

FILE_BYTES = 5_000_000
FILES_KEPT = 3


class LogLines(logging.Formatter):
    """Time in UTC, level, logger, message, and the traceback where there is one."""

    def __init__(self, form: LogForm = LogForm.JSON) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry = {
            "time": moment.removesuffix("+00:00") + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            # The innermost frames say most, and stand last.
            entry["traceback"] = self.formatException(record.exc_info)[-VALUE_CHARACTERS_MAX:]
        return log_line(self._form, entry)


class PrivateRotatingFile(RotatingFileHandler):
    """A rotating file whose every generation has mode 0600."""

    def _open(self) -> TextIOWrapper:
        path = Path(self.baseFilename)
        return TextIOWrapper(FileIO(path, "a", opener=_private_opener), encoding=self.encoding)


def _private_opener(path: str | Path, flags: int) -> int:
    return os.open(path, flags, 0o600)


def log_to(folder: Path, *, level: str = "info", form: str = "json") -> None:
    """Sends everything that this process logs into `folder`/node.log.

    Args:
        level: the least that is written: debug, info, warning or error.
        form: json or logfmt.

    Raises:
        BadLogSetting: there is no such level or form.
    """
    lines, least = LogLines(log_form(form)), log_level(level)
    make_private_folder(folder)
    handler = PrivateRotatingFile(
        folder / "node.log", maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8"
    )
    handler.setFormatter(lines)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(least)
