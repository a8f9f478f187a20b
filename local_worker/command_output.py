"""How `dllm-worker` speaks: text or one JSON envelope on stdout, failures with their exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from dllm_protocol.errors import DllmError

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@contextmanager
def reported(as_json: bool) -> Iterator[None]:
    """Failures as the envelope or as one line on stderr, with their exit codes."""
    try:
        yield
    except DllmError as error:
        if as_json:
            told = {"code": error.code, "message": error.message, "hint": error.hint}
            line({"ok": False, "error": told})
        else:
            hint = f"\n{error.hint}" if error.hint else ""
            sys.stderr.write(f"{error.message}{hint}\n")
        raise typer.Exit(error.exit_code) from error


def say(data: dict[str, Any], as_json: bool) -> None:
    if as_json:
        line({"ok": True, "data": data})
        return
    for key, value in data.items():
        sys.stdout.write(f"{key.replace('_', ' ')}: {value}\n")
    sys.stdout.flush()


def note(words: str) -> None:
    """What is under way, one line on stderr."""
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def line(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()
