"""Leaving a list out of a message without looking at it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.encoding import ByteString, ListOf, Record, Unsigned, record, wire
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.protobuf import bytes_field, sfixed64_field, without_list
from dllm_protocol.records import MAX_OFFERS

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


def test_as_many_elements_as_a_book_may_have_offers_are_stepped_over() -> None:
    elements = b"".join(bytes_field(7, bytes(22 + number % 4)) for number in range(MAX_OFFERS))
    before, behind = bytes_field(2, b"before"), bytes_field(20, b"behind")
    assert without_list(before + elements + behind, 7) == before + behind
