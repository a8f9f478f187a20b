"""What was handed on is given again byte for byte, or not at all; and memory stays within its bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.messages import FORM_BF16, FORM_F32
from local_worker.handed_log import RESENDS_MAX, HandedLogs

ONE, OTHER = b"1" * 32, b"2" * 32
ROW_BYTES = 8


def data_of(first: int, rows: int) -> bytes:
    return b"".join(position.to_bytes(ROW_BYTES, "little") for position in range(first, first + rows))


def bytes_of(logs: HandedLogs, session: bytes, first: int, rows: int) -> bytes | None:
    kept = logs.kept(session, first, rows)
    if kept is None:
        return None
    at = first
    for part in kept:
        assert part.first_position == at and len(part.data) == part.rows * ROW_BYTES
        at += part.rows
    assert at == first + rows
    return b"".join(part.data for part in kept)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=12),
    st.integers(0, 50),
    st.integers(1, 20),
)
def test_any_rows_that_are_held_come_back_and_no_others(
    noted: list[tuple[int, int]], first: int, rows: int
) -> None:
    logs, held = HandedLogs(1 << 20), 0
    for wish, count in noted:
        begin = min(wish, held)  # a stage takes no rows with a gap before them
        logs.note(ONE, begin, count, FORM_F32, data_of(begin, count))
        held = begin + count
    expected = data_of(first, rows) if first + rows <= held else None
    assert bytes_of(logs, ONE, first, rows) == expected
    assert logs.held_bytes == held * ROW_BYTES


def test_rows_keep_the_form_that_they_went_in() -> None:
    logs = HandedLogs(1 << 20)
    logs.note(ONE, 0, 2, FORM_F32, data_of(0, 2))
    logs.note(ONE, 2, 2, FORM_BF16, data_of(2, 2))
    kept = logs.kept(ONE, 1, 3)
    assert kept is not None
    assert [(part.first_position, part.rows, part.form) for part in kept] == [
        (1, 1, FORM_F32),
        (2, 2, FORM_BF16),
    ]


def test_whoever_was_used_longest_ago_makes_room() -> None:
    logs = HandedLogs(10 * ROW_BYTES)
    logs.note(ONE, 0, 5, FORM_F32, data_of(0, 5))
    logs.note(OTHER, 0, 5, FORM_F32, data_of(0, 5))
    logs.note(ONE, 5, 1, FORM_F32, data_of(5, 1))
    assert logs.kept(OTHER, 0, 1) is None
    assert bytes_of(logs, ONE, 0, 6) == data_of(0, 6)
    logs.note(ONE, 6, 5, FORM_F32, data_of(6, 5))
    assert logs.kept(ONE, 0, 1) is None and logs.held_bytes == 0, "one session alone is over the bound"


def test_a_session_that_is_over_leaves_nothing() -> None:
    logs = HandedLogs(1 << 20)
    logs.note(ONE, 0, 3, FORM_F32, data_of(0, 3))
    logs.drop(ONE)
    logs.drop(ONE)
    assert (logs.kept(ONE, 0, 1), logs.held_bytes) == (None, 0)


def test_rows_do_not_go_out_again_without_end() -> None:
    """A request for them costs the client nothing: only rows that are paid for make room for more."""
    logs = HandedLogs(1 << 20)
    logs.note(ONE, 0, 10, FORM_F32, data_of(0, 10))
    logs.note(OTHER, 0, 10, FORM_F32, data_of(0, 10))
    for _ in range(RESENDS_MAX):
        assert logs.kept(ONE, 0, 10) is not None
    assert logs.kept(ONE, 9, 1) is None
    assert logs.kept(OTHER, 9, 1) is not None, "another session has its own room"
    logs.note(ONE, 10, 1, FORM_F32, data_of(10, 1))
    assert logs.kept(ONE, 9, 2) is not None
