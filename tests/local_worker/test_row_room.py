"""What rows may take of a worker's memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from local_worker.capacity import RESERVE_BYTES, reserve_of
from local_worker.memory import FreeMemory
from local_worker.row_room import RowMemory


@given(st.integers(0, 1 << 36))
def test_all_rows_together_leave_a_part_of_the_reserve_alone(free_bytes: int) -> None:
    reserve_bytes = reserve_of(FreeMemory(free_bytes, "a test"))
    found = RowMemory.within(reserve_bytes)
    assert found.kept_bytes + found.waiting_bytes + found.gathered_bytes <= reserve_bytes * 3 // 4


def test_where_memory_is_no_bound_they_take_what_they_need() -> None:
    assert RowMemory.within(8 << 30) == RowMemory()
    assert RowMemory.within(RESERVE_BYTES).kept_bytes == 32 << 20
