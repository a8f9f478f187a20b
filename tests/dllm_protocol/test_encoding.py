"""One value, one encoding: every record type is held to it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dllm_protocol.encoding import (
    BOOL,
    HASH,
    NAME,
    U64,
    ByteString,
    ListOf,
    Nested,
    OneOf,
    Optional,
    Record,
    Text,
    Unsigned,
    record,
    wire,
)
from dllm_protocol.errors import MalformedBytes, UnknownField
from dllm_protocol.protobuf import (
    FIXED32,
    FIXED64,
    VARINT,
    bytes_field,
    int64_varint,
    read_fields,
    read_uvarint,
    sfixed64_field,
    tag,
    uvarint,
    varint_field,
)
from tests.dllm_protocol.format_strategies import record_types, values

TYPES = record_types()
BY_NAME = [pytest.param(one, id=one.__name__) for one in TYPES]
_SOME = settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@record
class Inner(Record):
    number: int = wire(1, U64)


@record
class Other(Record):
    flag: int = wire(1, BOOL)


@record
class Sample(Record):
    number: int = wire(1, U64)
    small: int = wire(2, Unsigned(9, minimum=3))
    digest: bytes = wire(3, HASH)
    name: str = wire(4, NAME)
    note: str = wire(5, Text(8))
    inner: Inner = wire(6, Nested(Inner))
    maybe: Inner | None = wire(7, Optional(Inner))
    many: tuple[int, ...] = wire(8, ListOf(U64, 3))
    some: tuple[Inner, ...] = wire(9, ListOf(Nested(Inner), 2, minimum=1))
    choice: Record = wire(20, OneOf({1: Inner, 2: Other}))
    blob: bytes = wire(21, ByteString(2, 4, optional=True))


SAMPLE = Sample(5, 3, b"h" * 32, "a-b", "ü", Inner(0), None, (0, 300), (Inner(1),), Other(1), b"")
SAMPLE_HEX = (
    "0805" + "1003" + "1a20" + "68" * 32 + "2203612d62" + "2a02c3bc" + "3200"
    "4000" + "40ac02" + "4a020801" + "a201041202" + "0801"
)


def test_the_bytes_are_protocol_buffers_in_field_order() -> None:
    assert SAMPLE.encode().hex() == SAMPLE_HEX
    assert Sample.decode(bytes.fromhex(SAMPLE_HEX)) == SAMPLE


# --- every record type of the formats


@pytest.mark.parametrize("record_type", BY_NAME)
@_SOME
@given(data=st.data())
def test_any_value_comes_back_as_it_was(record_type: type[Record], data: st.DataObject) -> None:
    value = data.draw(values(record_type))
    raw = value.encode()
    assert record_type.decode(raw) == value
    assert record_type.decode(raw).encode() == raw


@pytest.mark.parametrize("record_type", BY_NAME)
@_SOME
@given(data=st.data())
def test_a_flipped_byte_is_refused_or_is_another_value_with_its_own_bytes(
    record_type: type[Record], data: st.DataObject
) -> None:
    value = data.draw(values(record_type))
    raw = value.encode()
    for position in range(0, len(raw), max(1, len(raw) // 64)):
        for mask in (0x01, 0x08, 0x80, 0xFF):
            flipped = bytearray(raw)
            flipped[position] ^= mask
            _refused_or_canonical(record_type, bytes(flipped), value)


@pytest.mark.parametrize("record_type", BY_NAME)
@_SOME
@given(data=st.data())
def test_cut_or_lengthened_bytes_are_refused_or_are_another_value(
    record_type: type[Record], data: st.DataObject
) -> None:
    value = data.draw(values(record_type))
    raw = value.encode()
    for length in range(0, len(raw), max(1, len(raw) // 32)):
        _refused_or_canonical(record_type, raw[:length], value)
    _refused_or_canonical(record_type, raw + b"\x00", value)
    _refused_or_canonical(record_type, raw + raw[:2], value if raw else None)


def _refused_or_canonical(record_type: type[Record], raw: bytes, original: Record | None) -> None:
    try:
        decoded = record_type.decode(raw)
    except MalformedBytes:
        return
    assert decoded.encode() == raw
    assert decoded != original


@pytest.mark.parametrize("record_type", BY_NAME)
@_SOME
@given(data=st.data(), junk=st.binary(max_size=60))
def test_junk_is_refused_or_canonical(record_type: type[Record], data: st.DataObject, junk: bytes) -> None:
    raw = data.draw(values(record_type)).encode()
    cut = data.draw(st.integers(0, len(raw)))
    _refused_or_canonical(record_type, junk, None)
    _refused_or_canonical(record_type, raw[:cut] + junk + raw[cut:], None if not junk else object())  # type: ignore[arg-type]  # equals no record


@pytest.mark.parametrize("record_type", BY_NAME)
@settings(max_examples=3, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_a_field_of_the_future_is_refused_by_name(record_type: type[Record], data: st.DataObject) -> None:
    raw = data.draw(values(record_type)).encode()
    unknown = max(field.number for field in record_type.__wire__) + 1
    for field in (varint_field(unknown, 1), bytes_field(unknown, b"x"), sfixed64_field(unknown, 1)):
        with pytest.raises(UnknownField, match=f"{record_type.__name__} has no field {unknown}"):
            record_type.decode(raw + field)


# --- departures from the canonical form, one by one


def changed(old: str, new: str) -> bytes:
    """The sample's bytes with one place written otherwise."""
    assert SAMPLE_HEX.count(old) == 1, SAMPLE_HEX.count(old)
    return bytes.fromhex(SAMPLE_HEX.replace(old, new))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (changed("08051003", "10030805"), "out of order"),
        (changed("08051003", "080508051003"), "out of order or repeated"),
        (changed("08051003", "08001003"), "default value is written"),
        (changed("08051003", "0885001003"), "shortest form"),
        (changed("08051003", "0805"), "small is missing"),
        (changed("08051003", "08051002"), "2 is outside 3..9"),
        (changed("08051003", "0805100a"), "10 is outside 3..9"),
        (changed("08051003", "0d050000001003"), "wire type 5, not 0"),
        (changed("2203612d62", ""), "name is missing"),
        (changed("2203612d62", "2203612d42"), "'B' is not allowed"),
        (changed("2a02c3bc", "2a00"), "default value is written"),
        (changed("2a02c3bc", "2a01c3"), "not UTF-8"),
        (changed("2a02c3bc", "2a010a"), "control character"),
        (changed("2a02c3bc", "2a02c285"), "control character"),
        (changed("2a02c3bc", "2a09616161616161616161"), "text of 9 bytes"),
        (changed("2a02c3bc3200", "2a02c3bc"), "inner is missing"),
        (changed("400040ac02", "4000400040004000"), "4 elements where 0..3"),
        (changed("400040ac02", "420200ac"), "wire type 2, not 0"),
        (changed("4a020801", ""), "some is missing"),
        (changed("4a020801", "4a0208014a0208014a020801"), "3 elements where 1..2"),
        (changed("a2010412020801", ""), "choice is missing"),
        (changed("a2010412020801", "a20100"), "0 alternatives"),
        (changed("a2010412020801", "a201080a02080112020801"), "2 alternatives"),
        (changed("a2010412020801", "a201021001"), "wire type 0, not 2"),
        (bytes.fromhex(SAMPLE_HEX + "aa0100"), "default value is written"),
        (bytes.fromhex(SAMPLE_HEX + "aa010161"), "1 bytes where 2..4"),
        (bytes.fromhex(SAMPLE_HEX + "ab01"), "unknown wire type 3"),
        (bytes.fromhex(SAMPLE_HEX + "aa0105"), "claims 5 bytes, 0 are left"),
        (bytes.fromhex("00" + SAMPLE_HEX), "field number 0"),
        (bytes.fromhex("08ffffffffffffffffff7f"), "exceeds 64 bits|longer than ten"),
    ],
)
def test_a_departure_from_the_canonical_form_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(MalformedBytes, match=words):
        Sample.decode(raw)


def test_an_unknown_alternative_is_an_unknown_field() -> None:
    with pytest.raises(UnknownField, match="alternative 3"):
        Sample.decode(changed("a2010412020801", "a201041a020801"))


@pytest.mark.parametrize(
    "change",
    [
        {"number": -1},
        {"number": 1 << 64},
        {"small": 2},
        {"digest": b""},
        {"digest": b"h" * 31},
        {"name": ""},
        {"name": "A"},
        {"note": "a\x1b"},
        {"note": "\ud800"},
        {"note": "ü" * 5},
        {"many": (1, 2, 3, 4)},
        {"some": ()},
        {"choice": SAMPLE},
        {"blob": b"x"},
    ],
)
def test_a_value_outside_its_kind_is_not_written(change: dict[str, object]) -> None:
    fields = {field.name: getattr(SAMPLE, field.name) for field in Sample.__wire__}
    with pytest.raises(MalformedBytes, match=next(iter(change))):
        Sample(**{**fields, **change}).encode()


def test_a_field_number_is_given_once() -> None:
    with pytest.raises(TypeError, match="twice"):

        @record
        class Twice(Record):
            one: int = wire(1, U64)
            two: int = wire(1, U64)


# --- the wire beneath


@given(st.integers(0, (1 << 64) - 1))
def test_varints_come_back(value: int) -> None:
    raw = uvarint(value)
    assert read_uvarint(raw + b"rest", 0) == (value, len(raw))


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_a_varint_holds_64_bits(value: int) -> None:
    with pytest.raises(MalformedBytes):
        uvarint(value)


def test_negative_numbers_take_ten_bytes() -> None:
    assert int64_varint(-1).hex() == "ff" * 9 + "01"


@pytest.mark.parametrize("raw", [b"", b"\x80", b"\x80\x00", b"\xff" * 9 + b"\x02", b"\xff" * 11])
def test_a_varint_in_another_form_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedBytes):
        read_uvarint(raw, 0)


def test_fields_of_every_wire_type_are_walked() -> None:
    raw = varint_field(1, 7) + sfixed64_field(2, -1) + bytes_field(3, b"abc") + tag(4, FIXED32) + b"1234"
    assert list(read_fields(raw)) == [
        (1, VARINT, 7),
        (2, FIXED64, b"\xff" * 8),
        (3, 2, b"abc"),
        (4, FIXED32, b"1234"),
    ]
