"""One log entry as one line, in JSON or logfmt: for machines to search and for people to read.

Whatever an entry quotes, a stranger may have chosen: no line feed, escape sequence or reordering of text leaves this
module, and no line is longer than `LINE_BYTES_MAX`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum

from dllm_protocol.errors import UsageRefused

LINE_BYTES_MAX = 16_384
VALUE_CHARACTERS_MAX = 4_000
LEVELS = ("debug", "info", "warning", "error")


class LogForm(StrEnum):
    """How a line is written."""

    JSON = "json"
    LOGFMT = "logfmt"


class BadLogSetting(UsageRefused):
    """A level or form that there is not."""

    code = "E_LOG"


def log_form(name: str) -> LogForm:
    """The form of that name. Raises BadLogSetting."""
    try:
        return LogForm(name)
    except ValueError as error:
        raise BadLogSetting(f"logs are written as {', '.join(LogForm)}, not as {name[:40]!r}") from error


def log_level(name: str) -> str:
    """The level of that name, as Python's logging calls it. Raises BadLogSetting."""
    if name not in LEVELS:
        raise BadLogSetting(f"the log's levels are {', '.join(LEVELS)}, not {name[:40]!r}")
    return name.upper()


def log_line(form: LogForm, entry: Mapping[str, str]) -> str:
    """One line without its end.

    Args:
        entry: names in snake case to text of any kind.
    """
    cut = {name: _cut(value) for name, value in entry.items()}
    if form is LogForm.JSON:
        # ASCII only: every control, bidi and private character is escaped.
        line = json.dumps(cut)
    else:
        line = " ".join(f"{name}={_quoted(value)}" for name, value in cut.items())
    return line if len(line) <= LINE_BYTES_MAX else _shorter(form, cut)


def _shorter(form: LogForm, entry: Mapping[str, str]) -> str:
    """The same with less of what is long, where escaping made the line too long."""
    return log_line(form, {name: value[: len(value) // 2] for name, value in entry.items()})


def _cut(value: str) -> str:
    return value if len(value) <= VALUE_CHARACTERS_MAX else value[: VALUE_CHARACTERS_MAX - 1] + "…"


def _quoted(value: str) -> str:
    if value and value.isascii() and value.isprintable() and not set(value) & set(' "=\\'):
        return value
    return json.dumps(value)
