"""How single values become bytes and back: numbers, bytes, text, records inside records, lists.

Each kind knows its bounds and refuses values outside them, writing and reading alike. Records are put together
from kinds in `dllm_protocol.encoding`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Generic, Protocol, Self, TypeVar, cast

from dllm_protocol.errors import MalformedBytes
from dllm_protocol.protobuf import LENGTH_DELIMITED, MAX_UINT64, VARINT, uvarint

T = TypeVar("T")


class Encodable(Protocol):
    """What can stand inside a record: a record."""

    def encode(self) -> bytes: ...

    @classmethod
    def decode(cls, data: bytes) -> Self: ...


E = TypeVar("E", bound=Encodable)


class Kind(Protocol[T]):
    """How one field's value becomes bytes and back.

    ``repeated`` kinds write one field an element; the others write one field or, for the default, none.
    """

    @property
    def wire_type(self) -> int: ...

    @property
    def repeated(self) -> bool: ...

    def is_default(self, value: T) -> bool: ...

    def pack(self, value: T) -> bytes:
        """Bytes behind the field's key. Raises MalformedBytes for a value outside the kind's bounds."""
        ...

    def unpack(self, raw: int | bytes) -> T: ...

    def default(self) -> T:
        """Value of an absent field. Raises MalformedBytes where absence is not allowed."""
        ...


@dataclasses.dataclass(frozen=True)
class Unsigned:
    """An unsigned integer in [minimum, maximum]; with a minimum above 0 the field is always written."""

    maximum: int = MAX_UINT64
    minimum: int = 0
    wire_type: int = VARINT
    repeated: bool = False

    def is_default(self, value: int) -> bool:
        return value == 0 and self.minimum == 0

    def pack(self, value: int) -> bytes:
        if not self.minimum <= value <= self.maximum:
            self._check(value)
        return uvarint(value)

    def unpack(self, raw: int | bytes) -> int:
        value = cast(int, raw)
        self._check(value)
        return value

    def default(self) -> int:
        self._check(0)
        return 0

    def _check(self, value: int) -> None:
        if not self.minimum <= value <= self.maximum:
            raise MalformedBytes(f"{value} is outside {self.minimum}..{self.maximum}")


@dataclasses.dataclass(frozen=True)
class FormatVersion(Unsigned):
    """The version of a format, up to the newest that this program knows (``maximum``)."""

    def _check(self, value: int) -> None:
        if value > self.maximum:
            raise MalformedBytes(
                f"version {value} of this format is newer than this program, which knows up to {self.maximum}"
            )
        super()._check(value)


@dataclasses.dataclass(frozen=True)
class ByteString:
    """Bytes of ``minimum`` to ``maximum`` length; with ``optional``, empty is allowed beside that range."""

    minimum: int
    maximum: int
    optional: bool = False
    wire_type: int = LENGTH_DELIMITED
    repeated: bool = False

    def is_default(self, value: bytes) -> bool:
        self._check(value)
        return not value

    def pack(self, value: bytes) -> bytes:
        self._check(value)
        return uvarint(len(value)) + value

    def unpack(self, raw: int | bytes) -> bytes:
        value = cast(bytes, raw)
        self._check(value)
        return value

    def default(self) -> bytes:
        self._check(b"")
        return b""

    def _check(self, value: bytes) -> None:
        if self.minimum <= len(value) <= self.maximum or (self.optional and not value):
            return
        wanted = str(self.minimum) if self.minimum == self.maximum else f"{self.minimum}..{self.maximum}"
        raise MalformedBytes(f"{len(value)} bytes where {wanted} are wanted")


@dataclasses.dataclass(frozen=True)
class Text:
    """UTF-8 text of at most ``maximum`` bytes without control characters; ``allowed`` narrows it to a set."""

    maximum: int
    allowed: frozenset[str] | None = None
    minimum: int = 0
    wire_type: int = LENGTH_DELIMITED
    repeated: bool = False

    def is_default(self, value: str) -> bool:
        if not value:
            self._check(value, 0)
        return not value

    def pack(self, value: str) -> bytes:
        try:
            raw = value.encode()
        except UnicodeEncodeError as error:
            raise MalformedBytes(f"text has a lone surrogate at character {error.start}") from error
        self._check(value, len(raw))
        return uvarint(len(raw)) + raw

    def unpack(self, raw: int | bytes) -> str:
        data = cast(bytes, raw)
        try:
            value = data.decode()
        except UnicodeDecodeError as error:
            raise MalformedBytes(f"text is not UTF-8 at byte {error.start}") from error
        self._check(value, len(data))
        return value

    def default(self) -> str:
        self._check("", 0)
        return ""

    def _check(self, value: str, size: int) -> None:
        if not self.minimum <= size <= self.maximum:
            raise MalformedBytes(f"text of {size} bytes where {self.minimum}..{self.maximum} are wanted")
        if (
            value.isascii()
            and value.isprintable()
            and (self.allowed is None or self.allowed.issuperset(value))
        ):
            return
        for character in value:
            if self.allowed is not None and character not in self.allowed:
                raise MalformedBytes(f"character {character!r} is not allowed here")
            if ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0:
                raise MalformedBytes(f"control character {character!r} in text")


@dataclasses.dataclass(frozen=True)
class Nested(Generic[E]):
    """Another record inside this one, always written."""

    type: type[E]
    wire_type: int = LENGTH_DELIMITED
    repeated: bool = False

    def is_default(self, value: E) -> bool:
        return False

    def pack(self, value: E) -> bytes:
        raw = value.encode()
        return uvarint(len(raw)) + raw

    def unpack(self, raw: int | bytes) -> E:
        return self.type.decode(cast(bytes, raw))

    def default(self) -> E:
        raise MalformedBytes(f"the {self.type.__name__} is missing")


@dataclasses.dataclass(frozen=True)
class Optional(Generic[E]):
    """Another record inside this one, or None."""

    type: type[E]
    wire_type: int = LENGTH_DELIMITED
    repeated: bool = False

    def is_default(self, value: E | None) -> bool:
        return value is None

    def pack(self, value: E | None) -> bytes:
        raw = cast(E, value).encode()
        return uvarint(len(raw)) + raw

    def unpack(self, raw: int | bytes) -> E | None:
        return self.type.decode(cast(bytes, raw))

    def default(self) -> E | None:
        return None


@dataclasses.dataclass(frozen=True)
class ListOf(Generic[T]):
    """``minimum`` to ``maximum`` elements of another kind, in an order that means something."""

    element: Kind[T]
    maximum: int
    minimum: int = 0
    repeated: bool = True

    @property
    def wire_type(self) -> int:
        return self.element.wire_type

    def is_default(self, value: tuple[T, ...]) -> bool:
        self.check_length(len(value))
        return not value

    def pack(self, value: tuple[T, ...]) -> bytes:
        raise TypeError("a list is packed element by element")

    def unpack(self, raw: int | bytes) -> tuple[T, ...]:
        raise TypeError("a list is unpacked element by element")

    def default(self) -> tuple[T, ...]:
        self.check_length(0)
        return ()

    def check_length(self, length: int) -> None:
        """Raises MalformedBytes outside the bounds."""
        if not self.minimum <= length <= self.maximum:
            raise MalformedBytes(f"{length} elements where {self.minimum}..{self.maximum} are wanted")


def element_of(kind: Kind[Any]) -> Kind[Any]:
    """What is packed one by one: a list's element, else the kind itself."""
    return cast(ListOf[Any], kind).element if kind.repeated else kind


U64 = Unsigned()
U32 = Unsigned((1 << 32) - 1)
BOOL = Unsigned(1)
PPM = Unsigned(1_000_000)
UDLLM = Unsigned((1 << 60) - 1)
HASH = ByteString(32, 32)
OPTIONAL_HASH = ByteString(32, 32, optional=True)
ADDRESS = ByteString(20, 20)
OPTIONAL_ADDRESS = ByteString(20, 20, optional=True)
PUBLIC_KEY = ByteString(32, 32)
SIGNATURE = ByteString(64, 64)
NAME = Text(64, frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_@"), minimum=1)
