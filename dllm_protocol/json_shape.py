"""Strict reading of JSON objects as CometBFT's RPC writes them.

64-bit integers are decimal strings, hashes and addresses upper hex, keys and signatures base64.
Everything else is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence

from dllm_protocol.block_errors import MalformedBlock
from dllm_protocol.comet_wire import INT64_MAX, INT64_MIN

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,19}", re.ASCII)
_HEX = re.compile(r"(?:[0-9A-F]{2})*", re.ASCII)


def shape(
    name: str, value: object, required: Sequence[str], optional: Sequence[str] = ()
) -> Mapping[str, object]:
    """Return `value` as an object that has every required key and no key beyond the optional ones."""
    if not isinstance(value, Mapping):
        raise MalformedBlock(f"{name} is {type(value).__name__}, not an object")
    missing = [key for key in required if key not in value]
    if missing:
        raise MalformedBlock(f"{name} lacks {missing[0]!r}")
    unknown = [key for key in value if key not in required and key not in optional]
    if unknown:
        raise MalformedBlock(f"{name} has an unknown key {str(unknown[0])[:40]!r}")
    return value


def items(name: str, value: object, limit: int) -> Sequence[object]:
    """Return a list of at most `limit` elements; null counts as empty, as Go writes it."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise MalformedBlock(f"{name} is {type(value).__name__}, not a list")
    if len(value) > limit:
        raise MalformedBlock(f"{name} has {len(value)} elements, at most {limit}")
    return value


def text(name: str, value: object, limit: int = 65_536) -> str:
    """Return a string of at most `limit` characters."""
    if not isinstance(value, str):
        raise MalformedBlock(f"{name} is {type(value).__name__}, not a string")
    if len(value) > limit:
        raise MalformedBlock(f"{name} has {len(value)} characters, at most {limit}")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise MalformedBlock(f"{name} has half of a surrogate pair, which no UTF-8 can spell")
    return value


def number(name: str, value: object, low: int, high: int) -> int:
    """Return a JSON number between two bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise MalformedBlock(f"{name} is {type(value).__name__}, not a number")
    return _bounded(name, value, low, high)


def integer(name: str, value: object, low: int = INT64_MIN, high: int = INT64_MAX) -> int:
    """Return a 64-bit integer written as a decimal string."""
    digits = text(name, value, 21)
    if _INTEGER.fullmatch(digits) is None:
        raise MalformedBlock(f"{name} is not a decimal integer: {digits!r}")
    return _bounded(name, int(digits), low, high)


def _bounded(name: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise MalformedBlock(f"{name} is {value}, outside {low} … {high}")
    return value


def hex_bytes(name: str, value: object, lengths: Sequence[int] | None = None) -> bytes:
    """Return bytes from upper hex; `lengths` lists the sizes allowed."""
    digits = text(name, value)
    if _HEX.fullmatch(digits) is None:
        raise MalformedBlock(f"{name} is not upper hex: {digits[:40]!r}")
    found = bytes.fromhex(digits)
    if lengths is not None and len(found) not in lengths:
        raise MalformedBlock(f"{name} has {len(found)} bytes, not one of {list(lengths)}")
    return found


def base64_bytes(name: str, value: object, limit: int = 1 << 20) -> bytes:
    """Return at most `limit` bytes from canonical base64; null counts as empty, as Go writes it."""
    if value is None:
        return b""
    written = text(name, value, limit // 3 * 4 + 8)
    try:
        found = base64.b64decode(written, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedBlock(f"{name} is not base64: {error}") from error
    if to_base64(found) != written:
        raise MalformedBlock(f"{name} is not canonical base64")
    return found


def to_hex(value: bytes) -> str:
    """Write bytes as upper hex."""
    return value.hex().upper()


def to_base64(value: bytes) -> str:
    """Write bytes as base64."""
    return base64.b64encode(value).decode("ascii")
