"""The one canonical form of everything that DLLM hashes, signs, stores or sends.

A record is a frozen dataclass whose fields carry a number and a kind::

    @record
    class Transfer(Record):
        recipient: bytes = wire(1, ADDRESS)
        amount_udllm: int = wire(2, U64)

Its bytes are deterministic protocol buffers: fields in ascending order, each at most once (lists: once an
element), defaults (0, empty) left out, varints minimal. Decoding refuses everything else, so that one value
has one encoding and one hash. See docs/protocol/encoding.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform

from dllm_protocol.codegen import make_checker, make_reader, make_writer
from dllm_protocol.errors import MalformedBytes, UnknownField
from dllm_protocol.kinds import (
    ADDRESS,
    BOOL,
    HASH,
    NAME,
    OPTIONAL_ADDRESS,
    OPTIONAL_HASH,
    PPM,
    PUBLIC_KEY,
    SIGNATURE,
    U32,
    U64,
    UDLLM,
    ByteString,
    FormatVersion,
    Kind,
    ListOf,
    Nested,
    Optional,
    Text,
    Unsigned,
    element_of,
)
from dllm_protocol.protobuf import LENGTH_DELIMITED, read_fields, tag, uvarint

__all__ = [
    "ADDRESS",
    "BOOL",
    "HASH",
    "NAME",
    "OPTIONAL_ADDRESS",
    "OPTIONAL_HASH",
    "PPM",
    "PUBLIC_KEY",
    "SIGNATURE",
    "U32",
    "U64",
    "UDLLM",
    "ByteString",
    "FormatVersion",
    "Kind",
    "ListOf",
    "Nested",
    "OneOf",
    "Optional",
    "Record",
    "Text",
    "Unsigned",
    "WireField",
    "record",
    "wire",
]

T = TypeVar("T")
R = TypeVar("R", bound="Record")


class OneOf:
    """A record of one of several types, each under its own number: ``{1: Transfer, 2: OpenSession}``."""

    wire_type = LENGTH_DELIMITED
    repeated = False

    def __init__(self, types: Mapping[int, type[Record]]) -> None:
        self.by_number = dict(types)
        self._by_key = {
            key[0]: types[number] for number in types if len(key := tag(number, LENGTH_DELIMITED)) == 1
        }
        self.by_type = {record_type: number for number, record_type in types.items()}

    def is_default(self, value: Record) -> bool:
        return False

    def pack(self, value: Record) -> bytes:
        number = self.by_type.get(type(value))
        if number is None:
            raise MalformedBytes(f"{type(value).__name__} is not one of the allowed types")
        inner = value.encode()
        outer = tag(number, LENGTH_DELIMITED) + uvarint(len(inner)) + inner
        return uvarint(len(outer)) + outer

    def unpack(self, raw: int | bytes) -> Record:
        data = cast(bytes, raw)
        # One alternative of less than 128 bytes, as most are, is cut out at once.
        if (
            len(data) > 2
            and data[1] == len(data) - 2 < 0x80
            and (known := self._by_key.get(data[0])) is not None
        ):
            return known.decode(data[2:])
        return self._unpack_by_field(data)

    def _unpack_by_field(self, raw: bytes) -> Record:
        fields = list(islice(read_fields(raw), 2))
        if len(fields) != 1:
            raise MalformedBytes(f"{len(fields)} alternatives, or more, where exactly one is wanted")
        number, wire_type, value = fields[0]
        record_type = self.by_number.get(number)
        if record_type is None:
            raise UnknownField(f"alternative {number} is not known to this version")
        if wire_type != LENGTH_DELIMITED:
            raise MalformedBytes(f"alternative {number} has wire type {wire_type}, not {LENGTH_DELIMITED}")
        return record_type.decode(cast(bytes, value))

    def default(self) -> Record:
        raise MalformedBytes("no alternative is given")


@dataclasses.dataclass(frozen=True, slots=True)
class WireField:
    """One field of a record type."""

    number: int
    name: str
    kind: Kind[Any]
    key: bytes


_Packer = tuple[str, bytes, Callable[[Any], bool], Callable[[Any], bytes], bool]
"""What `Record.encode` needs of a field, looked up once: name, key, is_default, pack (of an element), repeated."""
_Unpacker = tuple[str, int, Callable[[Any], bool], Callable[[Any], Any], int]
"""What `Record.decode` needs of a field: name, wire type, is_default, unpack (of an element), most elements of a
list (0: not repeated).
"""


class Record:
    """Base of every canonical record; subclasses are decorated with `record`."""

    __slots__ = ()
    __wire__: ClassVar[tuple[WireField, ...]] = ()
    __wire_by_number__: ClassVar[Mapping[int, WireField]] = {}
    __packers__: ClassVar[tuple[_Packer, ...]] = ()
    __unpackers__: ClassVar[Mapping[int, _Unpacker]] = {}

    def __init_subclass__(cls) -> None:
        """Each type makes its own three: what was made for one type knows nothing of the fields of another above it."""
        for name in ("encode", "check", "decode"):
            if name not in cls.__dict__:
                setattr(cls, name, Record.__dict__[name])

    def encode(self) -> bytes:
        """The canonical bytes.

        Raises:
            MalformedBytes: a field's value is outside the bounds of its kind.
        """
        # At its first use a type gets a writer of its own, which then stands in this one's place; so do the next two.
        writer = _writer_of(type(self))
        setattr(type(self), "encode", writer)  # noqa: B010 - no assignment to a method, for the type checker
        return writer(self)

    def check(self) -> bool:
        """Refuse what `encode` refuses, without writing; say whether `encode` would write anything at all.

        Raises:
            MalformedBytes: as `encode`.
        """
        checker = _checker_of(type(self))
        setattr(type(self), "check", checker)  # noqa: B010 - as above
        return checker(self)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the canonical form back.

        Raises:
            UnknownField: a field number that this type does not have.
            MalformedBytes: any other departure from the canonical form.
        """
        reader = _reader_of(cls)
        setattr(cls, "decode", staticmethod(reader))  # noqa: B010 - as above
        return cast(Self, reader(data))

    def _encode_by_field(self) -> bytes:
        """`encode`, field by field: what the canonical form is, and why a value has none."""
        out: list[bytes] = []
        name = ""
        try:
            for name, key, is_default, pack, repeated in self.__packers__:
                value = getattr(self, name)
                # Defaults are falsy; what is not is bounded by its packing, a list by `is_default`.
                if (repeated or not value) and is_default(value):
                    continue
                if repeated:
                    for element in value:
                        out += (key, pack(element))
                else:
                    out += (key, pack(value))
        except MalformedBytes as error:
            raise type(error)(f"{type(self).__name__}.{name}: {error.message}") from error
        return b"".join(out)

    @classmethod
    def _decode_by_field(cls, data: bytes) -> Self:
        """`decode`, field by field: what the canonical form is, and where bytes depart from it."""
        values: dict[str, Any] = {}
        unpackers = cls.__unpackers__
        last = 0
        for number, wire_type, raw in read_fields(data):
            if number not in unpackers:
                raise UnknownField(f"{cls.__name__} has no field {number}")
            name, wanted, is_default, unpack, longest = unpackers[number]
            if number <= last and (number < last or not longest):
                raise MalformedBytes(f"{cls.__name__}.{name} is out of order or repeated")
            last = number
            if wire_type != wanted:
                raise MalformedBytes(f"{cls.__name__}.{name} has wire type {wire_type}, not {wanted}")
            try:
                value = unpack(raw)
                if not longest:
                    # Defaults are falsy.
                    if not value and is_default(value):
                        raise MalformedBytes("a default value is written out")
                    values[name] = value
                else:
                    elements = values.setdefault(name, [])
                    elements.append(value)
                    if len(elements) > longest:
                        is_default(elements)  # refuses the length
            except MalformedBytes as error:
                raise type(error)(f"{cls.__name__}.{name}: {error.message}") from error
        return cls(**_complete(cls, values))


def _writer_of(record_type: type[Record]) -> Callable[[Record], bytes]:
    if record_type not in _WRITERS:
        _WRITERS[record_type] = make_writer(record_type, record_type.__wire__, record_type._encode_by_field)
    return _WRITERS[record_type]


def _checker_of(record_type: type[Record]) -> Callable[[Record], bool]:
    if record_type not in _CHECKERS:
        _CHECKERS[record_type] = make_checker(record_type, record_type.__wire__, record_type._encode_by_field)
    return _CHECKERS[record_type]


def _reader_of(record_type: type[Record]) -> Callable[[bytes], Record]:
    if record_type not in _READERS:
        _READERS[record_type] = make_reader(record_type, record_type.__wire__, record_type._decode_by_field)
    return _READERS[record_type]


_WRITERS: dict[type[Record], Callable[[Record], bytes]] = {}
_CHECKERS: dict[type[Record], Callable[[Record], bool]] = {}
_READERS: dict[type[Record], Callable[[bytes], Record]] = {}


def _complete(cls: type[Record], values: dict[str, Any]) -> dict[str, Any]:
    """Fill in absent fields and freeze lists."""
    for field in cls.__wire__:
        if field.name not in values:
            try:
                values[field.name] = field.kind.default()
            except MalformedBytes as error:
                raise MalformedBytes(f"{cls.__name__}.{field.name} is missing: {error.message}") from error
        elif field.kind.repeated:
            cast(ListOf[Any], field.kind).check_length(len(values[field.name]))
            values[field.name] = tuple(values[field.name])
    return values


def _unpacker(field: WireField) -> _Unpacker:
    kind = field.kind
    longest = cast(ListOf[Any], kind).maximum if kind.repeated else 0
    return field.name, kind.wire_type, kind.is_default, element_of(kind).unpack, longest


def wire(number: int, kind: Kind[T]) -> T:
    """Declare a field: its number on the wire, once given never reused, and its kind."""
    return cast(T, dataclasses.field(metadata={"number": number, "kind": kind}))


@dataclass_transform(frozen_default=True, field_specifiers=(wire,))
def record(cls: type[R]) -> type[R]:
    """Make a class a frozen, slotted dataclass with the canonical encoding of its `wire` fields."""
    made = dataclasses.dataclass(frozen=True, slots=True)(cls)
    fields = sorted(
        (
            WireField(
                field.metadata["number"],
                field.name,
                field.metadata["kind"],
                tag(field.metadata["number"], field.metadata["kind"].wire_type),
            )
            for field in dataclasses.fields(made)  # type: ignore[arg-type]  # made is a dataclass
        ),
        key=lambda field: field.number,
    )
    numbers = [field.number for field in fields]
    if len(set(numbers)) != len(numbers):
        raise TypeError(f"{cls.__name__} uses a field number twice: {numbers}")
    made.__wire__ = tuple(fields)
    made.__wire_by_number__ = {field.number: field for field in fields}
    made.__packers__ = tuple(
        (field.name, field.key, field.kind.is_default, element_of(field.kind).pack, field.kind.repeated)
        for field in fields
    )
    made.__unpackers__ = {field.number: _unpacker(field) for field in fields}
    return made
