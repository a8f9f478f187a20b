"""Strict reading of the messages that CometBFT v0.38 hashes and signs, and the one writer that protobuf.py lacks.

Unknown fields, wrong wire types, repeated singular fields, falling field numbers and written zeros are refused,
so that what was read is written again as the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dllm_protocol.block_errors import MalformedBlock
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.protobuf import (
    FIXED64,
    LENGTH_DELIMITED,
    VARINT,
    bytes_field,
    delimited,
    sfixed64_field,
    varint_field,
)
from dllm_protocol.protobuf import read_fields as walk_fields

__all__ = [
    "BYTES",
    "FIXED64",
    "INT64_MAX",
    "INT64_MIN",
    "UINT64_MAX",
    "VARINT",
    "Fields",
    "bytes_field",
    "delimited",
    "message_field",
    "read_fields",
    "sfixed64_field",
    "varint_field",
]

BYTES = LENGTH_DELIMITED

UINT64_MAX = 2**64 - 1
INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)


def message_field(field: int, encoded: bytes) -> bytes:
    """Encode an embedded message, or an element of a repeated field: always written, empty or not."""
    return bytes_field(field, encoded, always=True)


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one message as read, by number."""

    name: str
    values: Mapping[int, list[int | bytes]]

    def unsigned(self, field: int, limit: int = UINT64_MAX) -> int:
        """Return an unsigned field (0 when absent), refused above `limit`."""
        value = self._one(field)
        if value is None:
            return 0
        if not isinstance(value, int) or value > limit:
            raise MalformedBlock(f"{self.name} field {field}: {value!r} is above {limit}")
        return value

    def signed(self, field: int, limit: int = INT64_MAX) -> int:
        """Return an int64 or int32 field (0 when absent), refused outside -limit-1 … limit."""
        raw = self.unsigned(field)
        value = raw - 2**64 if raw > INT64_MAX else raw
        if not -limit - 1 <= value <= limit:
            raise MalformedBlock(f"{self.name} field {field}: {value} is outside ±{limit}")
        return value

    def octets(self, field: int) -> bytes:
        """Return a bytes field (empty when absent), refused where it is written although it is empty."""
        value = self.message(field)
        if not value and field in self.values:
            raise MalformedBlock(f"{self.name} field {field} is written although it is empty")
        return value

    def message(self, field: int) -> bytes:
        """Return an embedded message that may be absent, which reads as an empty one."""
        value = self._one(field)
        return value if isinstance(value, bytes) else b""

    def text(self, field: int) -> str:
        """Return a string field (empty when absent)."""
        try:
            return self.octets(field).decode("utf-8")
        except UnicodeDecodeError as error:
            raise MalformedBlock(f"{self.name} field {field} is not UTF-8: {error.reason}") from error

    def required(self, field: int) -> bytes:
        """Return an embedded message that is always written."""
        if field not in self.values:
            raise MalformedBlock(f"{self.name} lacks field {field}")
        return self.message(field)

    def repeated(self, field: int) -> list[bytes]:
        """Return every element of a repeated field."""
        return [value for value in self.values.get(field, []) if isinstance(value, bytes)]

    def _one(self, field: int) -> int | bytes | None:
        found = self.values.get(field)
        return found[0] if found else None


def read_fields(
    name: str, data: bytes, shape: Mapping[int, int], repeated: frozenset[int] = frozenset()
) -> Fields:
    """Read one message strictly.

    Args:
        name: what it is, for messages.
        data: its bytes.
        shape: wire type of each known field number.
        repeated: the numbers that may come more than once.

    Raises:
        MalformedBlock: anything that a canonical writer would not have written.
    """
    values: dict[int, list[int | bytes]] = {}
    last = 0
    try:
        for field, wire_type, value in walk_fields(data):
            if shape.get(field) != wire_type:
                raise MalformedBlock(f"{name}: field {field} of wire type {wire_type} is unknown")
            if field < last or (field == last and field not in repeated):
                raise MalformedBlock(f"{name}: field {field} comes after field {last}")
            if value == 0:
                raise MalformedBlock(f"{name}: field {field} is written although it is zero")
            values.setdefault(field, []).append(value)
            last = field
    except MalformedBlock:
        raise
    except MalformedBytes as error:
        raise MalformedBlock(f"{name}: {error.message}") from error
    return Fields(name, values)
