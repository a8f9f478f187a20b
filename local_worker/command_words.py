"""Words that several commands of `dllm-worker` take, and how they end when they are told to."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

from dllm_protocol.errors import UsageRefused

Expected = Annotated[
    str | None, typer.Option("--manifest-hash", help="What its manifest's hash must be, in hexadecimal.")
]


def hash_from(text: str | None) -> bytes | None:
    """A hash in hexadecimal.

    Raises:
        UsageRefused: it is something else.
    """
    if text is None:
        return None
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise UsageRefused(f"{text[:80]!r} is no hash of 64 hexadecimal digits")
    return bytes.fromhex(text)


@contextmanager
def interruptible() -> Iterator[None]:
    """A request to end is an ordinary way out, on which what was begun is cleared away."""

    def end(_number: int, _frame: object) -> NoReturn:
        raise SystemExit(130)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise SystemExit(130) from interrupt
    finally:
        signal.signal(signal.SIGTERM, before)
