"""One thing that reads what a stranger wrote, and how to try it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from dllm_protocol.errors import DllmError, MalformedBytes

T = TypeVar("T")


class Encoded(Protocol):
    """What writes itself."""

    def encode(self) -> bytes: ...


E = TypeVar("E", bound=Encoded)


@dataclass(frozen=True, slots=True)
class Decoder:
    """One decoder.

    Attributes:
        name: the function, as the completeness test finds it: ``package.module.Class.function``.
        room: those that share a coverage-guided run.
        read: reads the bytes and uses what it read; raises nothing but a DllmError.
        examples: valid inputs to begin from.
        is_json: whether the input is JSON, so that it is bent as JSON too.
    """

    name: str
    room: str
    read: Callable[[bytes], object]
    examples: tuple[bytes, ...]
    is_json: bool = False


class OtherSpelling(AssertionError):
    """A decoder that claims one form for each value took another."""


def name_of(decode: Callable[..., object]) -> str:
    """Where a function is defined."""
    return f"{decode.__module__}.{decode.__qualname__}"


def refused(decoder: Decoder, data: bytes) -> DllmError | None:
    """Read one input; returns the refusal, None where it was taken. Everything else comes out as it is."""
    try:
        decoder.read(data)
    except DllmError as error:
        # A refusal is shown and logged, so it must be text that can be written, and of bounded length.
        if len(str(error).encode()) > 8192 or len(error.hint.encode()) > 8192:
            raise AssertionError(f"{decoder.name} refuses with {len(str(error))} characters") from error
        return error
    return None


def canonical(decode: Callable[[bytes], E], use: Callable[[E], object] | None = None) -> Callable[[bytes], E]:
    """A decoder whose value must be written again as the same bytes; then it is used."""

    def read(data: bytes) -> E:
        value = decode(data)
        if value.encode() != data:
            raise OtherSpelling(f"{data.hex()[:200]} is written again as {value.encode().hex()[:200]}")
        if use is not None:
            use(value)
        return value

    return read


def stable(decode: Callable[[bytes], E], use: Callable[[E], object] | None = None) -> Callable[[bytes], E]:
    """A decoder that takes more forms than it writes; what it writes must be read as the same value."""

    def read(data: bytes) -> E:
        value = decode(data)
        if decode(value.encode()) != value:
            raise OtherSpelling(f"{value!r:.200} is read again as another value")
        if use is not None:
            use(value)
        return value

    return read


def parsed(data: bytes) -> Any:
    """JSON as every edge reads it before it looks inside."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedBytes("not JSON") from error


def from_json(
    decode: Callable[[object], T],
    write: Callable[[T], object] | None = None,
    use: Callable[[T], object] | None = None,
) -> Callable[[bytes], T]:
    """A reader of parsed JSON; what it read is written and read again as an equal value, then used."""

    def read(data: bytes) -> T:
        value = decode(parsed(data))
        if write is not None:
            again = decode(json.loads(json.dumps(write(value))))
            if again != value:
                raise OtherSpelling(f"{value!r:.200} is read again as {again!r:.200}")
        if use is not None:
            use(value)
        return value

    return read


def text(decode: Callable[[str], T]) -> Callable[[bytes], T]:
    """A reader of text: bytes that are not UTF-8 become lone surrogates, as the command line gives them."""
    return lambda data: decode(data.decode("utf-8", "surrogateescape"))
