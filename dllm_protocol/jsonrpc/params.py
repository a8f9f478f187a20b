"""Parameters of calls, from JSON (by name or by place) and from a GET's query string, as CometBFT reads
them.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any

from dllm_protocol.jsonrpc.errors import invalid_params

INT64_MAX = 2**63 - 1
_DIGITS = re.compile(r"-?[0-9]{1,19}", re.ASCII)


class Kind(Enum):
    """What a parameter is; all may be absent, which gives None."""

    INTEGER = auto()
    """A 64-bit integer: JSON number or decimal string."""
    FLAG = auto()
    TEXT = auto()
    OCTETS = auto()
    """Bytes: base64 in JSON; 0x hex or a quoted string in a query string."""
    HEX = auto()
    """Bytes: hex in JSON; 0x hex or a quoted string in a query string."""
    JSON = auto()
    """Any JSON value."""


Shape = Mapping[str, Kind]


def from_json(shape: Shape, given: object) -> dict[str, Any]:
    """Arguments from a request's `params`: an object, a list in the shape's order, or nothing. Raises
    RpcError.
    """
    if given is None:
        return dict.fromkeys(shape)
    if isinstance(given, Sequence) and not isinstance(given, str):
        if len(given) != len(shape):
            raise invalid_params(f"expected {len(shape)} parameters ({list(shape)}), got {len(given)}")
        given = dict(zip(shape, given, strict=True))
    if not isinstance(given, Mapping):
        raise invalid_params(f"params must be an object or a list, not {type(given).__name__}")
    return {name: _from_json(name, kind, given.get(name)) for name, kind in shape.items()}


def from_query(shape: Shape, given: Mapping[str, str]) -> dict[str, Any]:
    """Arguments from a GET's query string. Raises RpcError."""
    return {name: _from_query(name, kind, given.get(name, "")) for name, kind in shape.items()}


def _from_json(name: str, kind: Kind, value: object) -> object:
    if value is None or kind is Kind.JSON:
        return value
    if kind is Kind.INTEGER and not isinstance(value, bool) and isinstance(value, int | str):
        return _integer(name, str(value)) if value != "" else None
    if kind is Kind.FLAG and isinstance(value, bool):
        return value
    if isinstance(value, str):
        if kind is Kind.TEXT:
            return value
        if kind is Kind.OCTETS:
            return _base64(name, value)
        if kind is Kind.HEX:
            return _hex(name, value)
    raise invalid_params(f"error converting json params to arguments: {name} has type {type(value).__name__}")


def _from_query(name: str, kind: Kind, value: str) -> object:
    if value == "":
        return None
    quoted = len(value) >= 2 and value[0] == value[-1] == '"'
    bare = value[1:-1] if quoted else value
    if kind is Kind.INTEGER:
        return _integer(name, bare)
    if kind is Kind.FLAG:
        if bare not in ("true", "false"):
            raise invalid_params(
                f"error converting http params to arguments: {name} is neither true nor false"
            )
        return bare == "true"
    if kind is Kind.JSON:
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise invalid_params(f"error converting http params to arguments: {name} is not JSON") from error
    if not quoted and bare[:2].lower() == "0x":
        octets = _hex(name, bare[2:])
        return octets if kind is not Kind.TEXT else octets.decode(errors="replace")
    if not quoted:
        raise invalid_params(f"error converting http params to arguments: {name} must be quoted or 0x hex")
    return bare if kind is Kind.TEXT else bare.encode()


def _integer(name: str, digits: str) -> int:
    if _DIGITS.fullmatch(digits) is None or abs(int(digits)) > INT64_MAX:
        raise invalid_params(f"{name} is not a 64-bit integer: {digits[:40]!r}")
    return int(digits)


def _base64(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_params(f"{name} is not base64: {error}") from error


def _hex(name: str, text: str) -> bytes:
    try:
        return binascii.unhexlify(text.encode())
    except (binascii.Error, ValueError) as error:
        raise invalid_params(f"{name} is not hex: {error}") from error
