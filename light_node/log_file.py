"""The logs of workers, supervisors, proxies and the chat: one entry a line, rotating, readable by the owner only.

Full nodes write the same lines; docs/operating/logs.md describes them.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from io import FileIO, TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from dllm_protocol.log_lines import VALUE_CHARACTERS_MAX, LogForm, log_form, log_level, log_line

FILE_BYTES = 2_000_000
FILES_KEPT = 2


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
        return TextIOWrapper(FileIO(self.baseFilename, "a", opener=_private_opener), encoding="utf-8")


def _private_opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def log_to(file: Path, *, level: str = "info", form: str = "json") -> None:
    """Sends everything that this process logs into a file, and nothing to the terminal.

    Args:
        file: in a folder that is there.
        level: the least that is written: debug, info, warning or error.
        form: json or logfmt.

    Raises:
        BadLogSetting: there is no such level or form.
    """
    lines, least = LogLines(log_form(form)), log_level(level)
    handler = PrivateRotatingFile(file, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8")
    handler.setFormatter(lines)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(least)
