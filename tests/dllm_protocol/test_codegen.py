"""What is made for a type says exactly what the walk from field to field says, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dllm_protocol.encoding import U64, ListOf, Record, Text, record, wire
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.records import ProviderSet
from tests.dllm_protocol.format_strategies import record_types, values
from tests.dllm_protocol.test_encoding import Sample

BY_NAME = [pytest.param(one, id=one.__name__) for one in (Sample, *record_types())]
_SOME = settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
MASKS = (0x01, 0x02, 0x08, 0x7F, 0x80, 0xFF)


def outcome(work: Callable[[], Any]) -> object:
    """What came of it: a value, or the refusal's type and words."""
    try:
        return work()
    except MalformedBytes as error:
        return type(error), error.message


def require_agreement(record_type: type[Record], raw: bytes) -> None:
    made = outcome(lambda: record_type.decode(raw))
    assert made == outcome(lambda: record_type._decode_by_field(raw)), raw.hex()


@pytest.mark.parametrize("record_type", BY_NAME)
@_SOME
@given(data=st.data())
def test_values_are_written_and_read_as_field_by_field(
    record_type: type[Record], data: st.DataObject
) -> None:
    value = data.draw(values(record_type))
    raw = value.encode()
    assert raw == value._encode_by_field()
    assert value.check() == bool(raw)
    assert record_type.decode(raw) == value == record_type._decode_by_field(raw)


@pytest.mark.parametrize("record_type", BY_NAME)
@_SOME
@given(data=st.data(), junk=st.binary(min_size=1, max_size=12))
def test_bytes_are_judged_as_field_by_field(
    record_type: type[Record], data: st.DataObject, junk: bytes
) -> None:
    raw = data.draw(values(record_type)).encode()
    require_agreement(record_type, junk)
    step = max(1, len(raw) // 48)
    for at in range(0, len(raw) + 1, step):
        require_agreement(record_type, raw[:at])
        require_agreement(record_type, raw[:at] + junk + raw[at:])
        require_agreement(record_type, raw[:at] + raw[at + step :])
        for mask in MASKS:
            require_agreement(
                record_type, raw[:at] + bytes(byte ^ mask for byte in raw[at : at + 1]) + raw[at + 1 :]
            )


@pytest.mark.parametrize("record_type", BY_NAME)
@_SOME
@given(data=st.data())
def test_values_out_of_bounds_are_refused_as_field_by_field(
    record_type: type[Record], data: st.DataObject
) -> None:
    value = data.draw(values(record_type))
    for field in fields(record_type):  # type: ignore[arg-type]  # every record type is a dataclass
        for wrong in _neighbours(getattr(value, field.name)):
            broken = object.__new__(record_type)
            for name in (one.name for one in fields(record_type)):  # type: ignore[arg-type]  # as above
                object.__setattr__(broken, name, wrong if name == field.name else getattr(value, name))
            written = outcome(broken._encode_by_field)
            assert outcome(broken.encode) == written
            checked = outcome(broken.check)
            assert checked == (bool(written) if isinstance(written, bytes) else written)


def _neighbours(value: Any) -> list[Any]:
    """Values of the same type at and beyond the edges of any kind."""
    if isinstance(value, int):
        return [-1, 0, 1, value + 1, 1 << 16, 1 << 63, 1 << 64]
    if isinstance(value, bytes):
        return [b"", value + b"x", value[1:], bytes(1 << 10)]
    if isinstance(value, str):
        return ["", value + "\x1b", value + "A", "x" * 2_000]
    if isinstance(value, tuple):
        return [(), value[:1] * 3, value[:1] * 600]
    return [value]


@record
class Backwards(Record):
    """Its fields stand in another order than their numbers."""

    word: str = wire(2, Text(8))
    number: int = wire(1, U64)
    many: tuple[int, ...] = wire(3, ListOf(U64, 4))


@record
class Longer(Backwards):
    """Adds a field to another type's."""

    more: int = wire(4, U64)


def test_fields_may_be_declared_in_any_order() -> None:
    value = Backwards(word="two", number=1, many=(3, 3))
    assert value.encode() == b"\x08\x01\x12\x03two\x18\x03\x18\x03"
    assert Backwards.decode(value.encode()) == value


def test_a_type_above_another_reads_and_writes_its_own_fields() -> None:
    Backwards.decode(Backwards(word="used", number=1, many=()).encode())
    assert Backwards(word="", number=0, many=()).check() is False
    value = Longer(word="", number=0, many=(), more=5)
    assert value.check()
    assert value.encode() == b"\x20\x05"
    assert Longer.decode(b"\x20\x05") == value


def test_a_long_list_is_written_and_read_as_field_by_field() -> None:
    value = ProviderSet(tuple(number.to_bytes(20) for number in range(1 << 16)))
    raw = value.encode()
    assert raw == value._encode_by_field()
    assert ProviderSet.decode(raw) == value == ProviderSet._decode_by_field(raw)
