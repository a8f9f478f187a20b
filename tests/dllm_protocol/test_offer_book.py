"""A book that a stranger serves is held against its proved hash."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.errors import MalformedBytes
from dllm_protocol.offer_book import BookRefused, book_hash, check_book
from tests.vectors.record_formats import BOOK


def test_the_frozen_list_is_taken() -> None:
    assert check_book(BOOK.encode(), model="guide-1", epoch=12, expected_hash=book_hash(BOOK)) == BOOK


@pytest.mark.parametrize(
    "served",
    [
        replace(BOOK, entries=BOOK.entries[:1]),
        replace(BOOK, entries=()),
        replace(BOOK, entries=tuple(reversed(BOOK.entries))),
        replace(BOOK, entries=(*BOOK.entries, replace(BOOK.entries[0], provider=b"\xff" * 20))),
        replace(BOOK, entries=(replace(BOOK.entries[0], capacity_sessions=9), BOOK.entries[1])),
        replace(BOOK, epoch=13),
        replace(BOOK, model="guide-2"),
    ],
    ids=["shortened", "emptied", "reordered", "lengthened", "altered", "other epoch", "other model"],
)
def test_another_list_is_refused_naming_both_hashes(served: object) -> None:
    assert isinstance(served, type(BOOK))
    with pytest.raises(BookRefused, match=book_hash(BOOK).hex()[:16]) as refused:
        check_book(served.encode(), model="guide-1", epoch=12, expected_hash=book_hash(BOOK))
    assert book_hash(served).hex()[:16] in refused.value.message


def test_a_proved_list_of_another_model_is_refused() -> None:
    with pytest.raises(BookRefused, match="guide-1@12, asked was guide-2@12"):
        check_book(BOOK.encode(), model="guide-2", epoch=12, expected_hash=book_hash(BOOK))


def test_bytes_that_are_no_list_are_refused() -> None:
    with pytest.raises(MalformedBytes):
        check_book(BOOK.encode()[:-1], model="guide-1", epoch=12, expected_hash=book_hash(BOOK))
