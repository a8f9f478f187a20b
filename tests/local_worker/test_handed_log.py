"""What went to the next stage may go out again: the same bytes, within memory, and not without end."""

from __future__ import annotations

from local_worker.handed_log import RESENDS_MAX, HandedLogs, Kept

ONE, OTHER = b"1" * 32, b"2" * 32
ROW_BYTES = 4


def data_of(first: int, rows: int) -> bytes:
    return b"".join((first + n).to_bytes(ROW_BYTES, "little") for n in range(rows))


def noted(logs: HandedLogs, session: bytes, first: int, rows: int) -> None:
    logs.note(session, first, rows, 1, data_of(first, rows))


def test_rows_come_back_as_they_went_whatever_pieces_they_went_in() -> None:
    logs = HandedLogs(1 << 20)
    noted(logs, ONE, 0, 5)
    noted(logs, ONE, 5, 1)
    noted(logs, ONE, 3, 4)  # what stood behind is void
    assert logs.kept(ONE, 2, 4) == [Kept(2, 1, 1, data_of(2, 1)), Kept(3, 3, 1, data_of(3, 3))]
    assert logs.kept(ONE, 2, 6) is None and logs.kept(OTHER, 0, 1) is None
    assert logs.held_bytes == 7 * ROW_BYTES


def test_rows_do_not_go_out_again_without_end() -> None:
    """A request for them costs the client nothing: only rows that are paid for make room for more."""
    logs = HandedLogs(1 << 20)
    noted(logs, ONE, 0, 10)
    noted(logs, OTHER, 0, 10)
    for _ in range(RESENDS_MAX):
        assert logs.kept(ONE, 0, 10) is not None
    assert logs.kept(ONE, 9, 1) is None
    assert logs.kept(OTHER, 9, 1) is not None, "another session has its own room"
    noted(logs, ONE, 10, 1)
    assert logs.kept(ONE, 9, 2) is not None


def test_the_session_used_longest_ago_makes_room() -> None:
    logs = HandedLogs(12 * ROW_BYTES)
    noted(logs, ONE, 0, 8)
    noted(logs, OTHER, 0, 8)
    assert logs.kept(ONE, 0, 1) is None and logs.kept(OTHER, 0, 8) is not None
    assert logs.held_bytes == 8 * ROW_BYTES
    logs.drop(OTHER)
    assert logs.held_bytes == 0
