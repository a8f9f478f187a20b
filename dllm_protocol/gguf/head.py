"""A GGUF file's head: metadata and where each tensor lies; and how a head is written.

    file  := "GGUF" | version u32 | tensors u64 | keys u64 | key…  | tensor… | zeros to the alignment | data
    key   := name | kind u32 | value          name, string := length u64 | bytes
    array := kind u32 | count u64 | values    tensor := name | dimensions u32 | size u64… | kind u32 | offset u64

All numbers are little-endian. Each tensor's data begins at the next multiple of the alignment, in the head's order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Final

from dllm_protocol.gguf.errors import ModelFileDamaged
from dllm_protocol.gguf.kinds import (
    ARRAY,
    BOOL,
    FLOAT32,
    INTEGERS,
    STRING,
    TENSOR_KINDS,
    UINT32,
    VALUE_BYTES,
    VALUE_FORMS,
)

MAGIC: Final = b"GGUF"
VERSION: Final = 3
ALIGNMENT: Final = 32
"""Where a file names none; what is written here names none."""
_ARRAY_HEAD: Final = struct.Struct("<IQ")


@dataclass(frozen=True, slots=True)
class Value:
    """One value of the metadata, as its bytes: most are carried and never looked at."""

    kind: int
    raw: bytes = field(repr=False)

    def is_array(self) -> bool:
        """Whether it is an array of anything."""
        return self.kind == ARRAY

    def integer(self, what: str) -> int:
        """An integer of any width, or a truth value; ``what`` names it where it is none.

        Raises:
            ModelFileDamaged: it is something else.
        """
        if self.kind not in INTEGERS | {BOOL}:
            raise ModelFileDamaged(f"{what} is of kind {self.kind}, not a whole number")
        return int(struct.unpack("<" + VALUE_FORMS[self.kind], self.raw)[0])

    def text(self, what: str) -> str:
        """A string; bytes that are no UTF-8 are spelled out; ``what`` names it where it is none.

        Raises:
            ModelFileDamaged: it is something else.
        """
        if self.kind != STRING:
            raise ModelFileDamaged(f"{what} is of kind {self.kind}, not text")
        return self.raw[8:].decode("utf-8", "backslashreplace")

    def count(self) -> int:
        """How many elements an array has."""
        return int(_ARRAY_HEAD.unpack_from(self.raw)[1]) if self.is_array() else 1

    def integers(self, what: str) -> list[int]:
        """The elements of an array of integers or truth values; ``what`` names it where it is none.

        Raises:
            ModelFileDamaged: it is something else.
        """
        kind, count = _ARRAY_HEAD.unpack_from(self.raw) if self.is_array() else (-1, 0)
        if kind not in INTEGERS | {BOOL}:
            raise ModelFileDamaged(f"{what} is no array of whole numbers")
        return list(struct.unpack_from(f"<{count}{VALUE_FORMS[kind]}", self.raw, _ARRAY_HEAD.size))

    def part(self, first: int, end: int) -> Value:
        """Elements [first, end) of an array of values of fixed size.

        Raises:
            ModelFileDamaged: an array of strings, or fewer elements.
        """
        kind, count = _ARRAY_HEAD.unpack_from(self.raw) if self.is_array() else (-1, 0)
        if kind not in VALUE_BYTES or not 0 <= first <= end <= count:
            raise ModelFileDamaged(f"elements {first} to {end} of an array of {count} of kind {kind}")
        width, start = VALUE_BYTES[kind], _ARRAY_HEAD.size
        return Value(
            ARRAY,
            _ARRAY_HEAD.pack(kind, end - first) + self.raw[start + first * width : start + end * width],
        )


def u32(number: int) -> Value:
    """A 32-bit number for the metadata."""
    return Value(UINT32, struct.pack("<I", number))


def f32(number: float) -> Value:
    """A 32-bit float for the metadata."""
    return Value(FLOAT32, struct.pack("<f", number))


def text(words: str) -> Value:
    """A string for the metadata."""
    return Value(STRING, spelled(words.encode()))


def truths(values: Iterable[bool]) -> Value:
    """An array of truth values for the metadata."""
    bits = bytes(values)
    return Value(ARRAY, _ARRAY_HEAD.pack(BOOL, len(bits)) + bits)


def truth(value: bool) -> Value:
    """One truth value for the metadata."""
    return Value(BOOL, bytes((value,)))


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a head."""

    name: str
    shape: tuple[int, ...]
    """Innermost dimension first, as ggml has it."""
    kind: int
    """A key of `TENSOR_KINDS`."""
    offset: int = 0
    """Bytes from the beginning of the data."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its data, without padding."""
        _, elements, size = TENSOR_KINDS[self.kind]
        return prod(self.shape) // elements * size

    @property
    def kind_name(self) -> str:
        """ggml's name of its type."""
        return TENSOR_KINDS[self.kind][0]


@dataclass(frozen=True, slots=True)
class Head:
    """A whole head."""

    metadata: Mapping[str, Value] = field(repr=False)
    tensors: tuple[Tensor, ...] = field(repr=False)
    data_start: int
    """Offset of the data in the file."""
    alignment: int = ALIGNMENT

    @property
    def size_bytes(self) -> int:
        """Size of a file with this head, the last tensor padded."""
        last = self.tensors[-1] if self.tensors else None
        return self.data_start + (padded(last.offset + last.size_bytes, self.alignment) if last else 0)


def padded(size: int, alignment: int = ALIGNMENT) -> int:
    """The next multiple of the alignment."""
    return -(-size // alignment) * alignment


def spelled(data: bytes) -> bytes:
    """A string as GGUF writes it."""
    return struct.pack("<Q", len(data)) + data


def encode_head(metadata: Mapping[str, Value], tensors: Iterable[Tensor]) -> tuple[bytes, Head]:
    """Write a head, keys in ascending order, tensors in the order given.

    Returns:
        The bytes up to where the data begins, and the head with the tensors' offsets.
    """
    placed = []
    offset = 0
    for one in tensors:
        placed.append(Tensor(one.name, one.shape, one.kind, offset))
        offset = padded(offset + one.size_bytes)
    out = [struct.pack("<4sIQQ", MAGIC, VERSION, len(placed), len(metadata))]
    for key in sorted(metadata):
        value = metadata[key]
        out += (spelled(key.encode()), struct.pack("<I", value.kind), value.raw)
    for one in placed:
        out += (spelled(one.name.encode()), struct.pack("<I", len(one.shape)))
        out.append(struct.pack(f"<{len(one.shape)}QIQ", *one.shape, one.kind, one.offset))
    raw = b"".join(out)
    if placed:
        raw += bytes(padded(len(raw)) - len(raw))
    return raw, Head(dict(metadata), tuple(placed), len(raw))
