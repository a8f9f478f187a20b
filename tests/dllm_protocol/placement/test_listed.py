"""What placement reads out of a holder book."""

from __future__ import annotations

from dllm_protocol.holder_book import HolderBook, HolderEntry
from dllm_protocol.placement.holders import Holder
from dllm_protocol.placement.listed import holders_of, usual_speed
from dllm_protocol.placement.slices import Slice
from tests.dllm_protocol.placement.networks import name

WAITS = HolderEntry(name(1), name(9), 500, 3, 0, 0, 4, 0)
LOADS = HolderEntry(name(2), name(9), 900, 2, 2, 4, 5, 0)
SERVES = HolderEntry(name(3), name(8), 700, 4, 0, 2, 1, 1)
SILENT = HolderEntry(name(4), name(7), 0, 0, 0, 4, 0, 1)


def book(*entries: HolderEntry) -> HolderBook:
    return HolderBook("m", 6, entries)


def test_what_is_said_is_read() -> None:
    assert holders_of(book(WAITS, LOADS, SERVES), 7) == (
        Holder(name(1), name(9), 500, 3, None, 4, False),
        Holder(name(2), name(9), 900, 2, Slice(2, 4), 5, False),
        Holder(name(3), name(8), 700, 4, Slice(0, 2), 1, True),
    )


def test_who_says_nothing_counts_as_usual_and_is_given_no_turn() -> None:
    *_, silent = holders_of(book(WAITS, LOADS, SERVES, SILENT), 7)
    assert silent == Holder(name(4), name(7), 700, 4, Slice(0, 4), 7, True)
    assert holders_of(book(SILENT), 7) == (Holder(name(4), name(7), 1, 4, Slice(0, 4), 7, True),)


def test_the_usual_speed_is_the_lower_median_of_what_is_said() -> None:
    assert usual_speed(book()) == usual_speed(book(SILENT)) == 0
    assert usual_speed(book(WAITS, LOADS)) == 500
    assert usual_speed(book(WAITS, LOADS, SERVES, SILENT)) == 700
