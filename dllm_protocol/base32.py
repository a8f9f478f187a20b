"""Crockford's base 32: digits that people read aloud, type and copy without mistaking one for another."""

from __future__ import annotations

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {letter: value for value, letter in enumerate(ALPHABET)} | {"O": 0, "I": 1, "L": 1}


def write_base32(value: int, length: int) -> str:
    """A number as `length` digits, the most significant first."""
    return "".join(ALPHABET[value >> (5 * place) & 31] for place in range(length - 1, -1, -1))


def read_base32(text: str, length: int) -> int | None:
    """The number that digits spell; hyphens, spaces and case do not matter. None where they are not `length` digits."""
    digits = text.replace("-", "").replace(" ", "").upper()
    if len(digits) != length or any(digit not in _VALUES for digit in digits):
        return None
    value = 0
    for digit in digits:
        value = value << 5 | _VALUES[digit]
    return value


def grouped(digits: str) -> str:
    """Groups of four, joined by hyphens."""
    return "-".join(digits[at : at + 4] for at in range(0, len(digits), 4))
