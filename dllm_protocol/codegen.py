"""Straight-line readers and writers of records, made once for each record type.

`encoding.Record` defines the canonical form field by field, with a message for every way to depart from it. A chain
reads and writes small records by the hundred thousand, and there the walk from field to field is what costs. So, as
`dataclasses` does for `__init__`, source text is made from the fields of a type: one statement after the other, no
loop over fields, no call for numbers and plain bytes. What is made decides nothing of its own: where bytes or values
are not exactly canonical, it hands them to the general reader or writer, which says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from dllm_protocol.errors import MalformedBytes
from dllm_protocol.kinds import ByteString, Kind, ListOf, Optional, Unsigned, element_of
from dllm_protocol.protobuf import ONE_BYTE, VARINT, read_uvarint, uvarint

_HELPERS: dict[str, Any] = {
    "MalformedBytes": MalformedBytes,
    "ONE_BYTE": ONE_BYTE,
    "read_uvarint": read_uvarint,
    "uvarint": uvarint,
}
_GIVE_UP = ["    return general(data)"]
_GIVE_UP_WRITING = ["    return general(record)"]


class Field(Protocol):
    """What is needed of a field; `encoding.WireField` has it."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind[Any]: ...
    @property
    def key(self) -> bytes: ...


def make_reader(
    record_type: type, fields: Sequence[Field], general: Callable[[bytes], Any]
) -> Callable[[bytes], Any]:
    """A function from canonical bytes to a record of the type.

    Args:
        fields: ascending by number.
        general: judges all bytes that cannot be read in one go.
    """
    names = {**_HELPERS, "record_type": record_type, "general": general}
    # A type takes its fields in the order of its text, which need not be that of their numbers.
    in_order = dataclasses.fields(record_type)
    place_of = {field.name: place for place, field in enumerate(fields)}
    body: list[str] = []
    for place, field in enumerate(fields):
        names[f"unpack{place}"] = element_of(field.kind).unpack
        if field.kind.repeated:
            body += _read_list(place, field)
        else:
            body += _read_one(place, field, names)
    lines = [
        "size, at, name = len(data), 0, ''",
        "try:",
        *_indented(body),
        *_indented(["if at != size:", *_GIVE_UP]),
        "except IndexError:",
        *_GIVE_UP,
        "except MalformedBytes as error:",
        "    if not name:",
        *_indented(_GIVE_UP),
        f"    raise type(error)(f'{record_type.__name__}.{{name}}: {{error.message}}') from error",
        f"return record_type({', '.join(f'value{place_of[one.name]}' for one in in_order)})",
    ]
    return _define("data", lines, names, record_type)


def make_writer(
    record_type: type, fields: Sequence[Field], general: Callable[[Any], bytes]
) -> Callable[[Any], bytes]:
    """A function from a record of the type to its canonical bytes.

    Args:
        fields: ascending by number.
        general: refuses values that are out of their bounds.
    """
    return _make(record_type, fields, general, "b''", writes=True)


def make_checker(
    record_type: type, fields: Sequence[Field], general: Callable[[Any], bytes]
) -> Callable[[Any], bool]:
    """A function that refuses what the writer refuses, and says whether the writer would write anything."""
    return _make(record_type, fields, general, "False", writes=False)


def _make(
    record_type: type, fields: Sequence[Field], general: Callable[[Any], bytes], nothing: str, *, writes: bool
) -> Callable[[Any], Any]:
    names = {**_HELPERS, "general": general}
    body = [f"out = {nothing}"]
    for place, field in enumerate(fields):
        names[f"pack{place}"], names[f"is_default{place}"] = (
            element_of(field.kind).pack,
            field.kind.is_default,
        )
        body += [f"value = record.{field.name}", *_write(place, field, writes=writes)]
    lines = ["try:", *_indented([*body, "return out"]), "except MalformedBytes:", *_GIVE_UP_WRITING]
    return _define("record", lines, names, record_type)


def _read_one(place: int, field: Field, names: dict[str, Any]) -> list[str]:
    """Reads a field that comes at most once, or gives it its default."""
    try:
        names[f"default{place}"] = field.kind.default()
        absent = [f"    value{place} = default{place}"]
    except MalformedBytes:
        absent = _GIVE_UP
    return [
        f"if {_is_next(field.key)}:",
        *_indented(_read_value(place, field.name, field.kind, field.key, listed=False)),
        "else:",
        *absent,
    ]


def _read_list(place: int, field: Field) -> list[str]:
    kind = cast(ListOf[Any], field.kind)
    return [
        f"list{place} = []",
        f"while {_is_next(field.key)}:",
        *_indented(_read_value(place, field.name, kind.element, field.key, listed=True)),
        f"    list{place}.append(value{place})",
        f"    if len(list{place}) > {kind.maximum}:",
        *_indented(_GIVE_UP),
        f"if len(list{place}) < {kind.minimum}:",
        *_GIVE_UP,
        f"value{place} = tuple(list{place})",
    ]


def _is_next(key: bytes) -> str:
    return f"at < size and data[at] == {key[0]}" if len(key) == 1 else f"data.startswith({key!r}, at)"


def _read_value(place: int, name: str, kind: Kind[Any], key: bytes, *, listed: bool) -> list[str]:
    """Reads one value behind its key. Outside lists a default that is written out is left to the general reader."""
    value = f"value{place}"
    refuse_default = [] if listed else [f"if not {value}:", *_GIVE_UP]
    if kind.wire_type == VARINT:
        number = [f"{value} = data[at + {len(key)}]", f"at += {len(key) + 1}"]
        number += [f"if {value} > 127:", f"    {value}, at = read_uvarint(data, at - 1)"]
        if type(kind) is Unsigned:
            bounds = f"if not {kind.minimum} <= {value} <= {kind.maximum}:"
            return [*number, bounds, *_GIVE_UP, *refuse_default]
        return [
            *number,
            f"name = {name!r}",
            f"{value} = unpack{place}({value})",
            "name = ''",
            *refuse_default,
        ]
    octets = [f"end = data[at + {len(key)}]", f"at += {len(key) + 1}"]
    octets += ["if end > 127:", "    end, at = read_uvarint(data, at - 1)"]
    octets += ["end += at", "if end > size:", *_GIVE_UP]
    if type(kind) is ByteString:
        # Where empty is allowed beside the range, it is so only as a default.
        bounds = f"if not {kind.minimum} <= end - at <= {kind.maximum}:"
        return [*octets, bounds, *_GIVE_UP, f"{value} = data[at:end]", "at = end", *refuse_default]
    unpacked = [f"name = {name!r}", f"{value} = unpack{place}(data[at:end])", "name = ''", "at = end"]
    return [*octets, *unpacked, *refuse_default]


def _write(place: int, field: Field, *, writes: bool) -> list[str]:
    """Writes a field whose value is in `value`, or only checks it; refusals are left to the general writer."""
    kind, key = field.kind, field.key
    packed = f"out += {key!r} + pack{place}" if writes else f"out = True; pack{place}"
    if kind.repeated:
        bounds = cast(ListOf[Any], kind)
        lines = [f"if not {bounds.minimum} <= len(value) <= {bounds.maximum}:", *_GIVE_UP_WRITING]
        if not writes:
            return [*lines, "for element in value:", f"    {packed}(element)"]
        # Joined at once: every addition would copy all that stands before it, and lists have up to a million elements.
        elements = f"b''.join([{key!r} + pack{place}(element) for element in value])"
        return [*lines, "if value:", f"    out += {elements}"]
    if type(kind) is Unsigned:
        number = "(ONE_BYTE[value] if value < 128 else uvarint(value))"
        written = f"out += {key!r} + {number}" if writes else "out = True"
        return _bounded(f"{kind.minimum} <= value <= {kind.maximum}", written, always=kind.minimum > 0)
    if type(kind) is ByteString:
        length = "ONE_BYTE[len(value)]" if kind.maximum < 128 else "uvarint(len(value))"
        written = f"out += {key!r} + {length} + value" if writes else "out = True"
        always = kind.minimum > 0 and not kind.optional
        return _bounded(f"{kind.minimum} <= len(value) <= {kind.maximum}", written, always=always)
    present = "value is not None" if type(kind) is Optional else f"value or not is_default{place}(value)"
    return [f"if {present}:", f"    {packed}(value)"]


def _bounded(bounds: str, written: str, *, always: bool) -> list[str]:
    lines = [f"if not {bounds}:", *_GIVE_UP_WRITING, written]
    return lines if always else ["if value:", *_indented(lines)]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _define(
    argument: str, lines: Sequence[str], names: dict[str, Any], record_type: type
) -> Callable[[Any], Any]:
    """The function of one argument that the lines are the body of."""
    source = "\n".join([f"def made({argument}):", *_indented(lines)])
    code = compile(source, f"<codec of {record_type.__name__}>", "exec")
    exec(code, names)  # noqa: S102 - text made above from this program's own field declarations
    return cast(Callable[[Any], Any], names["made"])
