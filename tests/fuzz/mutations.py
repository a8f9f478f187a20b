"""Inputs that look almost right: valid examples, bent where decoders usually break."""

from __future__ import annotations

import json
import random
from typing import Any

from dllm_protocol.errors import MalformedBytes
from dllm_protocol.protobuf import FIXED64, LENGTH_DELIMITED, VARINT, bytes_field, read_fields, tag, uvarint

INPUT_BYTES_MAX = 1 << 17
HOSTILE_NUMBERS = (0, 1, 2, 127, 128, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
HOSTILE_JSON: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, 1.5, 1e308, float("inf"), float("nan"),
    "", "0", "-0", "00", "1e3", "9223372036854775808", "18446744073709551616", "9" * 5000,
    "\ud800", "\x00", "\x1b[2J", "\u202e", "\N{ARABIC-INDIC DIGIT THREE}", "\N{SUPERSCRIPT TWO}", "\N{KELVIN SIGN}",
    "A" * 70_000, "ff", "FF", "F", "AA==", "AB==", "=",
    "2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:60Z", [], {}, [[]], [None] * 300, {"": None},
)  # fmt: skip


def bent(example: bytes, chance: random.Random, *, is_json: bool) -> bytes:
    """One to four changes to an example."""
    data = example
    for _ in range(chance.randint(1, 4)):
        kind = chance.random()
        if is_json and kind < 0.7:
            data = _bent_json(data, chance)
        elif not is_json and kind < 0.5:
            data = _bent_message(data, chance)
        else:
            data = _bent_bytes(data, chance)
    return data[:INPUT_BYTES_MAX]


def _bent_bytes(data: bytes, chance: random.Random) -> bytes:
    """Flip, cut, double, remove or overwrite without knowing the format."""
    at = chance.randrange(len(data) + 1)
    length = chance.randint(1, 16)
    way = chance.randrange(7)
    if way == 0 and at < len(data):
        return data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :]
    if way == 1:
        return data[:at]
    if way == 2:
        return data[:at] + data[max(0, at - length) : at] + data[at:]
    if way == 3:
        return data[:at] + data[at + length :]
    if way == 4:
        return data[:at] + uvarint(chance.choice(HOSTILE_NUMBERS)) + data[at:]
    if way == 5:
        return data[:at] + chance.choice((b"\xff", b"\x00", b"\x80")) * length + data[at + length :]
    return data + data[:at]


def _bent_message(data: bytes, chance: random.Random) -> bytes:
    """Bend one field of a protocol-buffer message, or of a message inside it."""
    try:
        fields = list(read_fields(data))
    except MalformedBytes:
        return _bent_bytes(data, chance)
    if not fields:
        return tag(chance.randint(1, 20), VARINT) + uvarint(chance.choice(HOSTILE_NUMBERS))
    at = chance.randrange(len(fields))
    number, wire_type, value = fields[at]
    if isinstance(value, bytes) and len(value) > 1 and chance.random() < 0.6:
        fields[at] = number, wire_type, _bent_message(value, chance)
        return _written(fields)
    way = chance.randrange(7)
    if way == 0:
        del fields[at]
    elif way == 1:
        fields[at:at] = [fields[at]] * chance.choice((1, 2, 50, 300))
    elif way == 2:
        fields.insert(chance.randrange(len(fields) + 1), fields.pop(at))
    elif way == 3:
        fields[at] = chance.choice((0, number + 1, 2**29)), wire_type, value
    elif way == 4:
        fields[at] = number, VARINT, chance.choice(HOSTILE_NUMBERS)
    elif way == 5:
        fields[at] = number, LENGTH_DELIMITED, bytes(chance.choice((0, 1, 19, 21, 31, 33, 65, 5000)))
    else:
        # A length that lies: more than is there, or far more.
        claimed = uvarint(chance.choice((len(data) + 1, 2**31, 2**63, 2**64 - 1)))
        return _written(fields[:at]) + tag(number, LENGTH_DELIMITED) + claimed + _written(fields[at + 1 :])
    return _written(fields)


def _written(fields: list[tuple[int, int, int | bytes]]) -> bytes:
    out = []
    for number, wire_type, value in fields:
        if isinstance(value, int):
            out.append(tag(number, VARINT) + uvarint(value))
        elif wire_type == LENGTH_DELIMITED:
            out.append(bytes_field(number, value, always=True))
        else:
            out.append(tag(number, FIXED64 if len(value) == 8 else wire_type) + value)
    return b"".join(out)


def _bent_json(data: bytes, chance: random.Random) -> bytes:
    """Replace, remove, double or nest one value of a document."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return _bent_bytes(data, chance)
    root: dict[str, Any] = {"": document}
    holder: Any = root
    key: Any = ""
    while isinstance(holder[key], dict | list) and holder[key] and chance.random() < 0.85:
        holder = holder[key]
        key = chance.choice(list(holder)) if isinstance(holder, dict) else chance.randrange(len(holder))
    way = chance.randrange(6)
    if way <= 2:
        holder[key] = chance.choice(HOSTILE_JSON)
    elif way == 3 and isinstance(holder, dict):
        holder[chance.choice(("", "extra", str(key).upper(), "type"))] = holder.pop(key)
    elif way == 4:
        holder[key] = [holder[key]] * chance.choice((1, 2, 200))
    else:
        deep: Any = holder[key]
        for _ in range(chance.choice((3, 90, 400))):
            deep = [deep] if chance.random() < 0.5 else {"value": deep}
        holder[key] = deep
    return _dumped(root.get(""), data)


def _dumped(value: object, otherwise: bytes) -> bytes:
    try:
        return json.dumps(value).encode()
    except (RecursionError, ValueError):
        # Nested beyond what Python writes: nest the text itself.
        return b"[" * 100_000 + otherwise
