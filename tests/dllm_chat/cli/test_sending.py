"""Who is paid is shown whole; addresses that resemble others are refused."""

from pathlib import Path

import pytest

from dllm_chat.cli.sending import Lookalike, Payment, _say_what
from dllm_chat.wallet.address_book import AddressBook, Recipient
from dllm_protocol.address import encode_address

KNOWN, LIKE, OTHER = b"k" * 20, b"l" * 20, b"o" * 20


class Book(AddressBook):
    """One that finds `LIKE` to look like `KNOWN`."""

    def lookalikes(self, address: bytes, prefix: str) -> tuple[Recipient, ...]:
        return (Recipient(KNOWN, "alice", 3),) if address == LIKE else ()


@pytest.fixture
def book(tmp_path: Path) -> Book:
    made = Book(tmp_path / "book.json")
    made.name(KNOWN, "alice")
    return made


def payment(*, trust: bool = False) -> Payment:
    return Payment("x", "1.5", "", False, True, trust)


def test_the_address_is_shown_whole_in_groups(book: Book, capsys: pytest.CaptureFixture[str]) -> None:
    _say_what(book, KNOWN, "dllm", payment(), 1_500_000, 24)
    err = capsys.readouterr().err
    assert encode_address("dllm", KNOWN) in err.replace(" ", "")
    assert "(alice)" in err
    assert "1.5 DLLM, fee 0.000024 DLLM" in err
    assert "never paid" not in err


def test_a_stranger_is_called_one(book: Book, capsys: pytest.CaptureFixture[str]) -> None:
    _say_what(book, OTHER, "dllm", payment(), 1, 1)
    assert "you never paid this address before" in capsys.readouterr().err


def test_ones_own_address_is_called_so(book: Book, capsys: pytest.CaptureFixture[str]) -> None:
    _say_what(book, OTHER, "dllm", payment(), 1, 1, is_own=True)
    err = capsys.readouterr().err
    assert "this is your own address" in err and "never paid" not in err


def test_a_lookalike_is_refused_with_both_addresses(book: Book) -> None:
    with pytest.raises(Lookalike) as refused:
        _say_what(book, LIKE, "dllm", payment(), 1, 1)
    assert encode_address("dllm", LIKE) in refused.value.message
    assert encode_address("dllm", KNOWN) in refused.value.message
    assert _say_what(book, LIKE, "dllm", payment(trust=True), 1, 1) is None
