"""Where a command gets a password or a secret from: a file, a file descriptor or the person; never a flag's value."""

from __future__ import annotations

import contextlib
import getpass
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from dllm_chat.wallet.password import (
    DescriptorPassword,
    FilePassword,
    NoPasswordSource,
    PasswordSource,
    PromptPassword,
)
from dllm_protocol.errors import UsageRefused

PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="File that holds the password and nothing else.")
]
PasswordFd = Annotated[
    int | None, typer.Option("--password-fd", min=0, help="Open file descriptor to read the password from.")
]


class OneSource(UsageRefused):
    """The same secret was offered from two places."""

    code = "E_USAGE"


def person_is_there() -> bool:
    """Whether somebody sits at the terminal and can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def password_source(file: Path | None, descriptor: int | None, what: str = "password") -> PasswordSource:
    """The source that the options name; else the person; else nobody.

    Raises:
        OneSource: both options were given.
    """
    if file is not None and descriptor is not None:
        raise OneSource(f"--{what}-file and --{what}-fd were both given", hint="give one of them")
    if file is not None:
        return FilePassword(file)
    if descriptor is not None:
        return DescriptorPassword(descriptor)
    return PromptPassword(_ask) if person_is_there() else NoPasswordSource()


def secret_from(file: Path | None, descriptor: int | None, what: str) -> str | None:
    """A one-line secret from a file or descriptor; None where neither was given."""
    if file is None and descriptor is None:
        return None
    return password_source(file, descriptor, what).read(what)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While a person is asked, Ctrl-C ends the program at once, also inside an event loop."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ask(prompt: str) -> str:
    with interruptible():
        return getpass.getpass(f"{prompt}: ", stream=sys.stderr)
