"""Asking the person yes or no. Scripts are never stuck at a question: they say --yes or are refused."""

from __future__ import annotations

import sys

from dllm_chat.cli.output import note
from dllm_chat.cli.passwords import interruptible, person_is_there
from dllm_chat.sanitize import clean
from dllm_protocol.errors import Declined


def confirm(question: str, *, yes: bool) -> None:
    """Return when the person agrees, or did so with --yes.

    Raises:
        Declined: they said no, or there is nobody to ask.
    """
    if yes:
        return
    if not person_is_there():
        raise Declined(f"{question} There is nobody to ask.", hint="say --yes to agree beforehand")
    if ask_line(f"{question} [y/N] ").strip().lower() not in {"y", "yes"}:
        raise Declined("you said no: nothing was done")


def ask_line(prompt: str) -> str:
    """One typed line; the prompt goes to stderr. Ctrl-C ends it at once, also inside an event loop.

    Raises:
        Declined: the input ended.
    """
    with interruptible():
        sys.stderr.write(clean(prompt))
        sys.stderr.flush()
        line = sys.stdin.readline()
    if not line:
        note("")
        raise Declined("nothing was answered")
    return line
