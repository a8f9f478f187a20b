"""Leaving a list out of a message without looking at it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.encoding import ByteString, ListOf, Record, Unsigned, record, wire
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.protobuf import sfixed64_field, without_list

ELEMENT = ByteString(0, 400)


@record
class Around(Record):
    """A list with fields before and behind it, some of them lists too."""

    number: int = wire(1, Unsigned())
    before: tuple[bytes, ...] = wire(2, ListOf(ELEMENT, 8))
    middle: tuple[bytes, ...] = wire(7, ListOf(ELEMENT, 64))
    behind: bytes = wire(20, ELEMENT)


@given(
    st.integers(0, 2**64 - 1),
    st.lists(st.binary(max_size=300), max_size=4),
    st.lists(st.binary(max_size=300), max_size=40),
    st.binary(max_size=40),
)
def test_a_list_is_left_out_and_nothing_else(
    number: int, before: list[bytes], middle: list[bytes], behind: bytes
) -> None:
    whole = Around(number, tuple(before), tuple(middle), behind)
    assert without_list(whole.encode(), 7) == Around(number, tuple(before), (), behind).encode()
    assert without_list(whole.encode(), 9) == whole.encode()


def test_what_no_record_has_is_refused() -> None:
    with pytest.raises(MalformedBytes, match="wire type 1"):
        without_list(sfixed64_field(3, 5), 7)
