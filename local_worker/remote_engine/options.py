"""Which server, which key, and how patient we are with it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from dllm_protocol.errors import UsageRefused

MAX_KEY_BYTES = 4096
MAX_URL = 512
MAX_MODEL_NAME = 512


@dataclass(frozen=True, slots=True)
class RemoteLimits:
    """Bounds on one server's answers; times in seconds."""

    connect_s: float = 5.0
    first_row_s: float = 300.0
    """A long prompt is decoded before its first row."""
    row_s: float = 60.0
    answer_s: float = 60.0
    """For answers that are no rows."""
    tries: int = 3
    """Of one row, where the server is busy or breaks off."""
    pause_s: float = 0.25
    """Before the second try; doubles."""
    longest_pause_s: float = 2.0
    """The most that a server's ``Retry-After`` is heeded."""
    idle_s: float = 10.0
    """A stream that nobody reads is closed after so long: it occupies the server."""
    first_window: int = 8
    longest_window: int = 64
    """Rows that a stream may run ahead."""
    max_event_bytes: int = 1 << 20
    max_answer_bytes: int = 16 << 20


DEFAULT_LIMITS = RemoteLimits()


@dataclass(frozen=True, slots=True)
class RemoteServer:
    """A server that speaks OpenAI's completions interface."""

    url: str
    """Up to and with ``/v1``."""
    model: str | None = None
    """Its name for the model; None where it serves only one."""
    key: str = field(default="", repr=False)
    limits: RemoteLimits = DEFAULT_LIMITS


BACKENDS = ("llama.cpp", "openai")


def remote_server(
    backend: str, url: str | None, key_file: Path | None, model: str | None, *, in_parts: bool = False
) -> RemoteServer | None:
    """The server that a person named; None for the engine of our own.

    Args:
        in_parts: whether layers of a model are to be served.

    Raises:
        UsageRefused: an unknown backend, layers for a server, options of a backend that was not chosen, no address, or
            an unusable key file.
    """
    if backend not in BACKENDS:
        raise UsageRefused(f"there is no backend {backend[:40]!a}", hint=f"one of {', '.join(BACKENDS)}")
    if backend != "openai":
        if url is not None or key_file is not None or model is not None:
            raise UsageRefused(
                f"--url, --api-key-file and --remote-model are for --backend openai, not for {backend}"
            )
        return None
    if in_parts:
        raise UsageRefused(
            "--backend openai is for whole models: --model FILE, without --package and --layers"
        )
    if url is None:
        raise UsageRefused("--backend openai needs --url", hint="for example http://127.0.0.1:8000/v1")
    if model is not None and not 0 < len(model) <= MAX_MODEL_NAME:
        raise UsageRefused(f"a model's name has 1 to {MAX_MODEL_NAME} characters, this one {len(model)}")
    return RemoteServer(checked_url(url), model, key_from_file(key_file) if key_file is not None else "")


def checked_url(url: str) -> str:
    """The address without a slash at its end.

    Raises:
        UsageRefused: not http(s)://host[:port]/path, or one with a password, a query or a fragment in it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    usable = parts.scheme in ("http", "https") and parts.hostname and port != 0
    if not usable or not url.isascii() or not url.isprintable() or " " in url or len(url) > MAX_URL:
        raise UsageRefused(
            f"{url[:80]!a} is no address of a server", hint="for example http://127.0.0.1:8000/v1"
        )
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UsageRefused(
            "the server's address must be without password, query and fragment: it is shown to people",
            hint="put the key into a file and name that with --api-key-file",
        )
    return url.rstrip("/")


def key_from_file(path: Path) -> str:
    """A key, from the first line of a file that only its owner may read.

    Raises:
        UsageRefused: no such file, others may read it, or there is no key in it.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise UsageRefused(f"{path} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise UsageRefused(f"{path} can be read by others (mode {mode:o})", hint=f"chmod 600 {path}")
    key = content.strip()
    # What is in it stays unsaid: it may be a good key with a bad byte.
    if not key or len(content) > MAX_KEY_BYTES or not all(0x21 <= byte < 0x7F for byte in key):
        raise UsageRefused(
            f"{path} holds no key", hint="one line of printable ASCII without spaces, as the server was told"
        )
    return key.decode("ascii")
