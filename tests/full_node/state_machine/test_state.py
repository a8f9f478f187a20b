"""Overlays: changes that are seen above and not below until they are merged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.errors import MalformedBytes
from dllm_protocol.records import Account
from full_node.state_machine.state import Overlay, read
from tests.full_node.state_machine.world import MemoryReader

KEYS = st.sampled_from([b"account/a", b"account/b", b"account/c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), KEYS, st.integers(0, 3)),
        st.tuples(st.just("put"), KEYS, st.integers(1, 3)),
        st.tuples(st.just("delete"), KEYS, st.just(0)),
        st.tuples(st.just("read"), KEYS, st.just(0)),
        st.tuples(st.just("merge"), KEYS, st.just(0)),
        st.tuples(st.just("drop"), KEYS, st.just(0)),
    ),
    max_size=40,
)


@given(STEPS)
def test_a_stack_of_overlays_is_one_dictionary(steps: list[tuple[str, bytes, int]]) -> None:
    reader = MemoryReader()
    reader.values[b"account/a"] = Account(9, 0).encode()
    below = Overlay(reader)
    above = Overlay(below)
    settled: dict[bytes, int] = {b"account/a": 9}
    pending = dict(settled)
    eager_above: dict[bytes, bytes | None] = {}
    eager_below: dict[bytes, bytes | None] = {}
    for verb, key, amount in steps:
        if verb in ("write", "put", "delete"):
            eager_above[key] = Account(amount, 0).encode() or None
        elif verb in ("merge", "drop"):
            eager_below |= eager_above if verb == "merge" else {}
            eager_above = {}
        if verb == "write":
            above.write(key, Account(amount, 0))
            pending[key] = amount
        elif verb == "put":
            above.put(key, Account(amount, 0).encode())
            pending[key] = amount
        elif verb == "delete":
            above.delete(key)
            pending[key] = 0
        elif verb == "merge":
            above.merge()
            settled = dict(pending)
        elif verb == "drop":
            above = Overlay(below)
            pending = dict(settled)
        for state, wanted in ((above, pending), (below, settled)):
            found = read(state, key, Account)
            assert (found.balance_udllm if found else 0) == wanted.get(key, 0)
            assert (state.get(key) is None) == (found is None)
        assert list(above.changes().items()) == list(eager_above.items())
        assert list(below.changes().items()) == list(eager_below.items())
    assert reader.values == {b"account/a": Account(9, 0).encode()}


def test_a_record_that_encodes_to_nothing_is_removed() -> None:
    state = Overlay(MemoryReader())
    state.write(b"account/a", Account(0, 0))
    assert state.changes() == {b"account/a": None}


def test_an_empty_value_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Overlay(MemoryReader()).put(b"k", b"")


def test_a_value_outside_its_bounds_is_refused_when_written() -> None:
    state = Overlay(MemoryReader())
    with pytest.raises(MalformedBytes, match="balance_udllm"):
        state.write(b"account/a", Account(1 << 60, 0))
    assert state.changes() == {}


def test_a_reader_takes_no_merge() -> None:
    with pytest.raises(TypeError):
        Overlay(MemoryReader()).merge()
