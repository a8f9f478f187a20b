"""Remembered recipients, and the trap of addresses that look like one of them.

A thief makes an address whose first and last characters equal those of somebody you pay, sends you dust from
it, and waits for you to copy it from the history. Only addresses that were paid or named count as known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_chat.paths import file_lock
from dllm_chat.wallet.errors import BadName, FileDamaged, NoSuchWallet
from dllm_chat.wallet.json_file import hex_field, int_field, read_json, write_json
from dllm_chat.wallet.profile import check_label
from dllm_protocol.address import decode_address, encode_address

FORMAT = "dllm-address-book"
VERSION = 1
MAX_ENTRIES = 10_000
EDGE_CHARACTERS = 4


@dataclass(frozen=True, slots=True)
class Recipient:
    """Somebody who was named or paid."""

    address: bytes
    """20 bytes."""
    name: str
    """Empty where only paid."""
    times_paid: int


class AddressBook:
    """The recipients of one home."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = path.with_suffix(".lock")

    def recipients(self) -> tuple[Recipient, ...]:
        """All of them, by address."""
        try:
            content = read_json(self._path, FORMAT, VERSION)
        except FileNotFoundError:
            return ()
        entries = content.get("recipients")
        if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
            raise FileDamaged(f"{self._path} lists no recipients")
        return tuple(_recipient_of(entry) for entry in entries)

    def find(self, address: bytes) -> Recipient | None:
        """What is known of an address."""
        return next((entry for entry in self.recipients() if entry.address == address), None)

    def resolve(self, text: str, prefix: str) -> bytes:
        """The address that a typed name or address means (20 bytes).

        Raises:
            BadAddress: looks like an address and is not one of this chain.
            NoSuchWallet: neither an address nor a remembered name.
        """
        for entry in self.recipients():
            if entry.name and entry.name == text:
                return entry.address
        if "1" not in text or len(text) < 20:
            raise NoSuchWallet(
                f"{text[:80]!r} is neither an address nor a remembered name",
                hint=f"addresses start with {prefix}1",
            )
        return decode_address(text, prefix)

    def name(self, address: bytes, name: str) -> None:
        """Remember an address under a name.

        Raises:
            BadName: not a label, taken by another address, or one that reads like an address.
        """
        check_label(name)
        if len(name) >= 20 and "1" in name:
            raise BadName(f"{name!r} reads like an address", hint="choose a shorter name")
        with file_lock(self._lock):
            known = {entry.address: entry for entry in self.recipients()}
            if any(entry.name == name and entry.address != address for entry in known.values()):
                raise BadName(f"{name!r} is the name of another address already")
            paid = known[address].times_paid if address in known else 0
            known[address] = Recipient(address, name, paid)
            self._write(known)

    def remember_paid(self, address: bytes) -> None:
        """Count a payment that was included."""
        with file_lock(self._lock):
            known = {entry.address: entry for entry in self.recipients()}
            old = known.get(address, Recipient(address, "", 0))
            known[address] = Recipient(address, old.name, old.times_paid + 1)
            self._write(known)

    def lookalikes(self, address: bytes, prefix: str) -> tuple[Recipient, ...]:
        """Known recipients whose text has the same first and last 4 characters and is another address."""
        edges = _edges(address, prefix)
        return tuple(
            entry
            for entry in self.recipients()
            if entry.address != address and _edges(entry.address, prefix) == edges
        )

    def _write(self, known: dict[bytes, Recipient]) -> None:
        if len(known) > MAX_ENTRIES:
            known = _without_least_used(known)
        entries = [
            {"address": entry.address.hex(), "name": entry.name, "times_paid": entry.times_paid}
            for _, entry in sorted(known.items())
        ]
        write_json(self._path, {"format": FORMAT, "version": VERSION, "recipients": entries})


def _edges(address: bytes, prefix: str) -> tuple[str, str]:
    data = encode_address(prefix, address)[len(prefix) + 1 :]
    return data[:EDGE_CHARACTERS], data[-EDGE_CHARACTERS:]


def _without_least_used(known: dict[bytes, Recipient]) -> dict[bytes, Recipient]:
    """Unnamed and seldom paid ones go first."""
    ranked = sorted(known.values(), key=lambda entry: (bool(entry.name), entry.times_paid), reverse=True)
    return {entry.address: entry for entry in ranked[:MAX_ENTRIES]}


def _recipient_of(entry: Any) -> Recipient:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise FileDamaged("a recipient of the address book has no name field")
    return Recipient(hex_field(entry, "address", 20), entry["name"], int_field(entry, "times_paid", 0, 2**53))
