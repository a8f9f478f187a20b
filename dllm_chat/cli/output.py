"""The only module of the command line that writes: data to stdout, messages to stderr.

Plain text without colours, so that NO_COLOR and TERM=dumb have nothing to ask for. Whatever goes to a terminal
has lost its control characters on the way.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dllm_chat.sanitize import clean, clean_line
from dllm_protocol.units import format_dllm

SCHEMA = 1
"""Version of the envelopes; it rises when a field changes its meaning or goes away."""
_UDLLM, _BYTES, _PRICES = _UNITS = "_udllm", "_bytes", "_udllm_per_1000"
"""How names of data say their unit."""
_EMPTY: tuple[object, ...] = ("", [], ())
_SIZES = ((10**3, "kB"), (10**6, "MB"), (10**9, "GB"), (10**12, "TB"))


@dataclass(frozen=True, slots=True)
class Report:
    """What a command came to."""

    data: Mapping[str, Any] = field(default_factory=dict)
    """The ``data`` of the JSON envelope."""
    text: str = ""
    """The same for people."""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command failed."""

    code: str
    """Stable name, ``E_…``."""
    exit_code: int
    message: str
    hint: str = ""


def prepare() -> None:
    """Names that are not valid text in this locale are shown escaped rather than ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write_report(report: Report, *, as_json: bool) -> None:
    """The end of a command that went well."""
    if as_json:
        _write_json({"ok": True, "schema": SCHEMA, "data": report.data})
    elif report.text:
        write_text(report.text + "\n")


def write_failure(failure: Failure, *, as_json: bool) -> None:
    """The end of a command that did not."""
    message, hint = clean(failure.message), clean(failure.hint)
    if as_json:
        error = {"code": failure.code, "message": message, "hint": hint}
        _write_json({"ok": False, "schema": SCHEMA, "error": error})
        return
    note(f"error: {message}")
    if hint:
        note(f"hint: {hint}")


def write_text(text: str) -> None:
    """Text to stdout at once."""
    sys.stdout.write(clean(text))
    sys.stdout.flush()


def note(text: str) -> None:
    """A message to stderr."""
    sys.stderr.write(clean(text) + "\n")
    sys.stderr.flush()


def progress(text: str) -> None:
    """What is under way, to stderr; scripts that throw it away lose nothing."""
    note(f"… {clean_line(text)}")


@contextlib.contextmanager
def alternate_screen() -> Iterator[None]:
    """What is shown on stderr meanwhile leaves no trace in the terminal's scrollback."""
    sys.stderr.write("\x1b[?1049h")
    clear_screen()
    try:
        yield
    finally:
        clear_screen()
        sys.stderr.write("\x1b[?1049l")
        sys.stderr.flush()


def clear_screen() -> None:
    """Empty the alternate screen, and what terminals keep of it."""
    sys.stderr.write("\x1b[2J\x1b[3J\x1b[H")
    sys.stderr.flush()


def let_go_of_stdout() -> None:
    """The reader went away (``dllm … | head``): write the rest nowhere, so that the interpreter ends in peace."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Left-aligned columns; the last one is not padded."""
    lines = [heads, *(tuple(clean_line(cell, 120) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def fields(pairs: Mapping[str, object]) -> str:
    """``name  value`` lines, as people read them: what is empty takes none, a list takes a line an element.

    Names lose underscores and units; amounts (``…_udllm``) are in DLLM, sizes (``…_bytes``) in the unit that fits.
    """
    shown = [(_name(name), _in_units(name, value)) for name, value in pairs.items() if value not in _EMPTY]
    width = max((len(name) for name, _ in shown), default=0)
    indent = "\n" + " " * (width + 2)
    return "\n".join(f"{name.ljust(width)}  {text}".rstrip().replace("\n", indent) for name, text in shown)


def size_text(size_bytes: int) -> str:
    """A size for people: 2376644 → ``2.4 MB``."""
    if size_bytes < _SIZES[0][0]:
        return f"{size_bytes} bytes"
    unit_bytes, unit = max(one for one in _SIZES if one[0] <= size_bytes)
    return f"{size_bytes / unit_bytes:.1f} {unit}"


def layers_text(layers: Sequence[int]) -> str:
    """Layers as they are typed, the end not included: ``0:8``."""
    return ":".join(str(one) for one in layers)


def _name(name: str) -> str:
    unit = next((unit for unit in _UNITS if name.endswith(unit)), "")
    return name.removesuffix(unit).replace("_", " ")


def _in_units(name: str, value: object) -> str:
    if isinstance(value, int) and name.endswith(_UDLLM):
        return f"{format_dllm(value)} DLLM"
    if isinstance(value, int) and name.endswith(_BYTES):
        return size_text(value)
    if name.endswith(_PRICES):
        return f"{_shown(value)} udllm for 1,000 tokens"
    return _shown(value)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        if all(isinstance(one, int) for one in value):
            return layers_text(value)
        return "\n".join(_shown(one) for one in value)
    return str(value)


def _write_json(envelope: Mapping[str, Any]) -> None:
    # ASCII with escapes: whatever the terminal's encoding, and whatever a file is called.
    sys.stdout.write(json.dumps(envelope) + "\n")
    sys.stdout.flush()
