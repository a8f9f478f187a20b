"""The proxy's token: made once, kept in a file of its owner alone, never on a command line."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from dllm_protocol.errors import UsageRefused
from light_node.proxy.guard import TOKEN_CHARACTERS_MIN

TOKEN_BYTES = 32
TOKEN_CHARACTERS_MAX = 512


def read_or_make_token(path: Path) -> str:
    """Return the token in a file, making both where there is none; the file has mode 0600.

    Raises:
        UsageRefused: the file cannot be read or made, others can read it, or it holds no token.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _read(path)
    except OSError as error:
        raise UsageRefused(f"{path} cannot be made: {error.strerror}") from error
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    return token


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(TOKEN_CHARACTERS_MAX + 2)
    except OSError as error:
        raise UsageRefused(f"{path} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise UsageRefused(f"{path} has mode {mode & 0o777:o}: others can read it", hint=f"chmod 600 {path}")
    token = raw.decode("ascii", errors="replace").strip()
    if not TOKEN_CHARACTERS_MIN <= len(token) <= TOKEN_CHARACTERS_MAX or not token.isascii() or " " in token:
        raise UsageRefused(
            f"{path} holds no token: one line of at least {TOKEN_CHARACTERS_MIN} ASCII characters is wanted",
            hint="delete it, and a new one is made",
        )
    return token
