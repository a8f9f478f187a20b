from __future__ import annotations

from pathlib import Path

import pytest

from dllm_chat.wallet import address_book
from dllm_chat.wallet.address_book import AddressBook
from dllm_chat.wallet.errors import BadName, FileDamaged, NoSuchWallet
from dllm_protocol.address import BadAddress, decode_address, encode_address

ALICE = bytes(range(20))
BOB = bytes(range(1, 21))
ALIKE = bytes.fromhex("000102be64bd060708090a0b0c0d0e0f10111213")
"""Same first and last 4 characters as ALICE; checksums are linear, so such a pair takes milliseconds to make."""


@pytest.fixture
def book(tmp_path: Path) -> AddressBook:
    return AddressBook(tmp_path / "address_book.json")


def test_names_resolve_and_addresses_do_too(book: AddressBook) -> None:
    book.name(ALICE, "alice")
    assert book.resolve("alice", "dllm") == ALICE
    assert book.resolve(encode_address("dllm", BOB), "dllm") == BOB
    with pytest.raises(NoSuchWallet, match="'carol'"):
        book.resolve("carol", "dllm")
    with pytest.raises(BadAddress, match="typo"):
        book.resolve(encode_address("dllm", BOB)[:-1] + "q", "dllm")
    with pytest.raises(BadAddress, match="'local'"):
        book.resolve(encode_address("local", BOB), "dllm")


def test_payments_are_counted_and_names_kept(book: AddressBook) -> None:
    book.remember_paid(ALICE)
    book.name(ALICE, "alice")
    book.remember_paid(ALICE)
    found = book.find(ALICE)
    assert found is not None
    assert (found.name, found.times_paid) == ("alice", 2)
    assert book.find(BOB) is None
    assert book.recipients() == (found,)


def test_names_are_unique_and_never_read_like_addresses(book: AddressBook) -> None:
    book.name(ALICE, "alice")
    book.name(ALICE, "alice")
    with pytest.raises(BadName, match="another address"):
        book.name(BOB, "alice")
    with pytest.raises(BadName, match="reads like"):
        book.name(BOB, encode_address("dllm", ALICE))
    with pytest.raises(BadName):
        book.name(BOB, "a\u202eb")


def test_a_lookalike_of_a_known_address_is_found(book: AddressBook) -> None:
    alice, alike = (encode_address("dllm", address) for address in (ALICE, ALIKE))
    assert alice != alike
    assert (alice[:9], alice[-4:]) == (alike[:9], alike[-4:])
    assert book.lookalikes(ALIKE, "dllm") == ()
    book.remember_paid(ALICE)
    assert [entry.address for entry in book.lookalikes(ALIKE, "dllm")] == [ALICE]
    assert book.lookalikes(ALICE, "dllm") == ()
    assert book.lookalikes(BOB, "dllm") == ()


def test_a_damaged_book_is_refused(book: AddressBook, tmp_path: Path) -> None:
    book.name(ALICE, "alice")
    path = tmp_path / "address_book.json"
    path.write_bytes(path.read_bytes().replace(b"alice", b"alicf"))
    with pytest.raises(FileDamaged, match="checksum"):
        book.recipients()


def test_the_book_is_bounded_and_named_ones_stay(book: AddressBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_book, "MAX_ENTRIES", 2)
    book.name(ALICE, "alice")
    book.remember_paid(BOB)
    book.remember_paid(BOB)
    book.remember_paid(bytes(20))
    assert {entry.address for entry in book.recipients()} == {ALICE, BOB}


def test_it_is_private(book: AddressBook, tmp_path: Path) -> None:
    book.name(ALICE, "alice")
    assert (tmp_path / "address_book.json").stat().st_mode & 0o777 == 0o600
    assert decode_address(encode_address("dllm", ALICE), "dllm") == ALICE
