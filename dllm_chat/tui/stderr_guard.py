"""Keeps the screen whole: what native code and children write to the terminal goes to a log instead."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from dllm_chat.paths import PRIVATE_FILE_MODE, make_private_folder

MAX_LOG_BYTES = 1 << 20


@contextlib.contextmanager
def guarded_terminal(log: Path) -> Iterator[None]:
    """Point file descriptors 1 and 2 at ``log`` while Python's own streams keep the terminal.

    Textual draws through `sys.__stderr__`; that gets a descriptor of its own, so drawing works and a C library's
    `fprintf(stderr, …)`, or a child that inherited our descriptors, cannot tear the picture. The log starts
    anew once it is longer than `MAX_LOG_BYTES`.
    """
    make_private_folder(log.parent)
    too_long = log.exists() and log.stat().st_size > MAX_LOG_BYTES
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (os.O_TRUNC if too_long else 0)
    before = sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__
    for stream in before:
        if stream is not None:
            stream.flush()
    kept = os.dup(1), os.dup(2)
    target = os.open(log, flags, PRIVATE_FILE_MODE)
    output = os.fdopen(os.dup(kept[0]), "w", encoding="utf-8", errors="replace")
    errors = os.fdopen(os.dup(kept[1]), "w", encoding="utf-8", errors="replace")
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout, sys.stderr = output, errors
        sys.__stdout__, sys.__stderr__ = output, errors  # type: ignore[misc]  # Final in typeshed, but Textual draws there
        yield
    finally:
        sys.stdout, sys.stderr = before[:2]
        sys.__stdout__, sys.__stderr__ = before[2:]  # type: ignore[misc]  # as above
        output.close()
        errors.close()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for descriptor in (*kept, target):
            os.close(descriptor)
