"""Low-level protocol-buffer wire format: the smallest part that DLLM records and CometBFT messages share.

Writers leave out default values, as proto3 does, unless ``always`` is set. Readers accept one form only:
minimal varints, known wire types, no groups. Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from dllm_protocol.errors import MalformedBytes

VARINT = 0
FIXED64 = 1
LENGTH_DELIMITED = 2
FIXED32 = 5

MAX_UINT64 = (1 << 64) - 1
ONE_BYTE = tuple(bytes((value,)) for value in range(0x80))
"""Varints of one byte."""


def uvarint(value: int) -> bytes:
    """Unsigned LEB128 of ``0 <= value < 2**64``."""
    if value < 0x80:
        if value < 0:
            raise MalformedBytes(f"a varint cannot hold the negative number {value}")
        return ONE_BYTE[value]
    if value > MAX_UINT64:
        raise MalformedBytes(f"a varint cannot hold {value}: it exceeds 64 bits")
    if value < 1 << 14:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = []
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def int64_varint(value: int) -> bytes:
    """Varint of a signed 64-bit number in two's complement (negative numbers take ten bytes)."""
    return uvarint(value & MAX_UINT64)


def read_uvarint(data: bytes, offset: int) -> tuple[int, int]:
    """Read a minimal varint at ``offset``; return (value, offset behind it).

    Raises:
        MalformedBytes: cut short, longer than ten bytes, above 64 bits, or padded with zero groups.
    """
    if offset < len(data) and data[offset] < 0x80:
        return data[offset], offset + 1
    value = shift = 0
    for position in range(offset, min(offset + 10, len(data))):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and position > offset:
                raise MalformedBytes(f"varint at byte {offset} is padded: it is not in its shortest form")
            if value > MAX_UINT64:
                raise MalformedBytes(f"varint at byte {offset} exceeds 64 bits")
            return value, position + 1
        shift += 7
    raise MalformedBytes(f"varint at byte {offset} is cut short or longer than ten bytes")


def tag(number: int, wire_type: int) -> bytes:
    """Key that stands before a field's value."""
    return uvarint(number << 3 | wire_type)


def varint_field(number: int, value: int, *, always: bool = False) -> bytes:
    """Field holding a signed or unsigned integer as a varint; zero is left out unless ``always``."""
    if value == 0 and not always:
        return b""
    return tag(number, VARINT) + int64_varint(value)


def sfixed64_field(number: int, value: int) -> bytes:
    """Field holding a signed 64-bit number in eight little-endian bytes; zero is left out."""
    if value == 0:
        return b""
    return tag(number, FIXED64) + value.to_bytes(8, "little", signed=True)


def bytes_field(number: int, value: bytes, *, always: bool = False) -> bytes:
    """Field holding bytes, text or an embedded message; empty is left out unless ``always``."""
    if not value and not always:
        return b""
    return tag(number, LENGTH_DELIMITED) + delimited(value)


def delimited(message: bytes) -> bytes:
    """A message with its length before it."""
    size = len(message)
    return (ONE_BYTE[size] if size < 0x80 else uvarint(size)) + message


def without_list(data: bytes, number: int) -> bytes:
    """A sound message without one list: its elements are stepped over, not looked at, whatever their number.

    Args:
        number: the list's field; its elements stand together and have lengths.
    """
    wanted, begin = tag(number, LENGTH_DELIMITED), 0
    while begin < len(data) and not data.startswith(wanted, begin):
        begin = _behind_field(data, begin)
    end, short = begin, _short_elements(wanted)
    while data.startswith(wanted, end):
        found = short.match(data, end)
        end = found.end() if found else _behind_field(data, end)
    return data[:begin] + data[end:]


@lru_cache(maxsize=8)
def _short_elements(key: bytes) -> re.Pattern[bytes]:
    """Elements of a list that have one byte of length, some hundred at a time: there may be ten thousands.

    A bound keeps what the match remembers small. A possessive repeat would, too, but Python before 3.11.5 takes a byte
    too much there where the last element is cut short, and nodes on different ones would disagree.
    """
    bodies = b"|".join(re.escape(bytes([length])) + b".{%d}" % length for length in range(0x80))
    return re.compile(b"(?:%s(?:%s)){1,256}" % (re.escape(key), bodies), re.DOTALL)


def _behind_field(data: bytes, offset: int) -> int:
    """Offset behind the field at ``offset``. Raises MalformedBytes for a wire type that no record has."""
    key, offset = read_uvarint(data, offset)
    value, offset = read_uvarint(data, offset)
    if key & 7 == VARINT:
        return offset
    if key & 7 == LENGTH_DELIMITED:
        return offset + value
    raise MalformedBytes(
        f"field {key >> 3} has the wire type {key & 7}, records have {VARINT} and {LENGTH_DELIMITED}"
    )


def read_fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Walk a message: yields (field number, wire type, integer or bytes) in the order written.

    Raises:
        MalformedBytes: a value is cut short, a field number is 0, or the wire type is a group or unknown.
    """
    offset, size = 0, len(data)
    while offset < size:
        # Most keys and lengths are one byte, which is always in its shortest form.
        if (key := data[offset]) < 0x80:
            offset += 1
        else:
            key, offset = read_uvarint(data, offset)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise MalformedBytes("field number 0 is not allowed")
        if wire_type == VARINT:
            value, offset = read_uvarint(data, offset)
            yield number, wire_type, value
            continue
        if wire_type == LENGTH_DELIMITED:
            if offset < size and (length := data[offset]) < 0x80:
                offset += 1
            else:
                length, offset = read_uvarint(data, offset)
        elif wire_type == FIXED64:
            length = 8
        elif wire_type == FIXED32:
            length = 4
        else:
            raise MalformedBytes(f"field {number} has the unknown wire type {wire_type}")
        end = offset + length
        if end > size:
            raise MalformedBytes(f"field {number} claims {length} bytes, {size - offset} are left")
        yield number, wire_type, data[offset:end]
        offset = end
