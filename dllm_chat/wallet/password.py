"""Where passwords come from (never a flag, never the environment), and which ones are too weak."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, Protocol

from dllm_chat.wallet.errors import NoPassword, WeakPassword

MAX_PASSWORD_BYTES = 1024
MIN_CHARACTERS = 10
MIN_BITS = 45.0
_COMMON = re.findall(
    r"\w+",
    """
    password passwort passwd qwertz qwerty asdfgh asdf zxcvbn letmein welcome admin iloveyou dragon monkey
    master login princess football baseball sunshine shadow superman batman trustno1 abc123 secret wallet
    bitcoin crypto ethereum dllm hunter2 changeme default test chatgpt
    """,
)
_COMMON_BITS = 6.0
"""What one of these words adds: about 1 in 64."""


class PasswordSource(Protocol):
    """Somewhere a password can be had from."""

    @property
    def interactive(self) -> bool:
        """Whether a person types it, so that a new one is asked twice."""
        ...

    def read(self, prompt: str) -> str:
        """The password. Raises NoPassword where there is none."""
        ...


class _Hidden:
    """Passwords are not copied into pickles, nor shown."""

    interactive = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a password source is never copied or pickled")


class FilePassword(_Hidden):
    """``--password-file``: the first line of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, prompt: str) -> str:
        """Reads the file anew each time; one newline at its end does not count."""
        try:
            with self._path.open("rb") as file:
                raw = file.read(MAX_PASSWORD_BYTES + 3)
        except OSError as error:
            raise NoPassword(f"the password file {self._path} cannot be read: {error.strerror}") from error
        return _one_line(raw, f"the password file {self._path}")


class DescriptorPassword(_Hidden):
    """``--password-fd``: read from an open file descriptor once, to its end, and kept for a second use."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._password: str | None = None

    def read(self, prompt: str) -> str:
        """Blocks until the writer closes its end."""
        if self._password is None:
            source = f"file descriptor {self._descriptor}"
            try:
                with os.fdopen(os.dup(self._descriptor), "rb") as file:
                    raw = file.read(MAX_PASSWORD_BYTES + 3)
            except OSError as error:
                raise NoPassword(f"{source} cannot be read: {error.strerror}") from error
            self._password = _one_line(raw, source)
        return self._password


class PromptPassword(_Hidden):
    """Asks the person. ``ask`` shows a prompt and returns what was typed, without echo."""

    interactive = True

    def __init__(self, ask: Callable[[str], str]) -> None:
        self._ask = ask

    def read(self, prompt: str) -> str:
        """Asks each time. Raises NoPassword for an empty answer."""
        password = self._ask(prompt)
        if not password:
            raise NoPassword("no password was typed")
        return password


class NoPasswordSource:
    """Unattended and nothing given."""

    interactive = False

    def read(self, prompt: str) -> str:
        """Always raises NoPassword."""
        raise NoPassword(
            "a password is needed and there is nobody to ask",
            hint="give --password-file FILE or --password-fd N",
        )


def read_new_password(source: PasswordSource, prompt: str) -> str:
    """A new password: strong enough, and typed twice alike where a person types it.

    Raises:
        NoPassword: none, or the two differ.
        WeakPassword: too easily guessed.
    """
    password = source.read(prompt)
    check_password(password)
    if source.interactive and source.read(f"{prompt}, once more") != password:
        raise NoPassword("the two passwords differ", hint="type the same one twice")
    return password


def check_password(password: str) -> None:
    """Raises WeakPassword for one that a thief of the keystore would soon guess."""
    if len(password) < MIN_CHARACTERS:
        raise WeakPassword(
            f"the password has {len(password)} characters, at least {MIN_CHARACTERS} are needed",
            hint="four or five unrelated words are long, strong and easy to remember",
        )
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        raise WeakPassword(f"the password is longer than {MAX_PASSWORD_BYTES} bytes")
    bits = estimate_bits(password)
    if bits < MIN_BITS:
        raise WeakPassword(
            f"the password is easily guessed: about {bits:.0f} bits, {MIN_BITS:.0f} are needed",
            hint="four or five unrelated words are long, strong and easy to remember",
        )


def estimate_bits(password: str) -> float:
    """A rough upper estimate of what guessing costs, in bits.

    Every character is worth log2 of its alphabets, but repeats, steps of one (``abc``, ``321``) and characters
    of well-known words are worth next to nothing. Simple on purpose; Argon2id makes each guess cost 0.3 s.
    """
    bits = 0.0
    rest = password
    for word in _COMMON:
        position = rest.lower().find(word)
        if position >= 0:
            rest = rest[:position] + rest[position + len(word) :]
            bits += _COMMON_BITS
    if not rest:
        return bits
    per_character = math.log2(_alphabet_size(rest))
    previous = ""
    for character in rest:
        expected = previous and abs(ord(character) - ord(previous)) <= 1
        bits += 1.0 if expected else per_character
        previous = character
    distinct = len(set(rest))
    return min(bits, bits * distinct / 5)


def _alphabet_size(text: str) -> int:
    size = 0
    size += 26 if any("a" <= c <= "z" for c in text) else 0
    size += 26 if any("A" <= c <= "Z" for c in text) else 0
    size += 10 if any("0" <= c <= "9" for c in text) else 0
    size += 33 if any(c.isascii() and not c.isalnum() for c in text) else 0
    size += 100 if not text.isascii() else 0
    return size


def _one_line(raw: bytes, source: str) -> str:
    line = raw.removesuffix(b"\n").removesuffix(b"\r")
    if not line:
        raise NoPassword(f"{source} is empty")
    if len(line) > MAX_PASSWORD_BYTES:
        raise NoPassword(f"{source} is longer than {MAX_PASSWORD_BYTES} bytes")
    if b"\n" in line:
        raise NoPassword(f"{source} has more than one line", hint="it holds the password and nothing else")
    text: str | None
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = None
    if text is None:  # raised outside the handler: a UnicodeDecodeError carries the bytes
        raise NoPassword(f"{source} is not UTF-8 text")
    return text
