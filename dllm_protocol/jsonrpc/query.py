"""The part of CometBFT's query language that is served: equalities joined by AND, and bounds on tx.height.

tm.event='Tx' AND tx.height>=5 AND message.sender='dllm1…'
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dllm_protocol.jsonrpc.errors import RpcError, internal_error

CONDITIONS_MAX = 8
QUERY_CHARACTERS_MAX = 512
HEIGHT_MAX = 2**63 - 1

_CONDITION = re.compile(
    r"\s*([A-Za-z0-9_.\-]{1,128})\s*(<=|>=|<|>|=)\s*(?:'([^']{0,256})'|([0-9]{1,18}))\s*(?:AND\b|$)", re.ASCII
)

_HEIGHT = re.compile(r"[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query.

    Attributes:
        text: as it was given.
        equalities: (tag, value), all of which must hold; `tx.height` is not among them.
        low: lowest transaction height.
        high: highest.
    """

    text: str
    equalities: tuple[tuple[str, str], ...]
    low: int
    high: int

    def value(self, tag: str) -> str | None:
        """What a tag must be equal to."""
        return next((value for name, value in self.equalities if name == tag), None)


def parse_query(text: str) -> Query:
    """Reads a query. Raises RpcError for anything outside the served part."""
    if len(text) > QUERY_CHARACTERS_MAX:
        raise internal_error("failed to parse query: maximum query length exceeded")
    equalities: list[tuple[str, str]] = []
    low, high = 0, HEIGHT_MAX
    position = 0
    while position < len(text):
        found = _CONDITION.match(text, position)
        if found is None or len(equalities) >= CONDITIONS_MAX:
            raise _refused(text, position)
        tag, operator, quoted, number = found.groups()
        if tag == "tx.height":
            digits = number or quoted or ""
            if _HEIGHT.fullmatch(digits) is None:
                raise _refused(text, position)
            low, high = _narrowed(low, high, operator, int(digits))
        elif operator == "=" and quoted is not None:
            equalities.append((tag, quoted))
        elif operator == "=" and number is not None:
            equalities.append((tag, number))
        else:
            raise _refused(text, position)
        position = found.end()
    if not text.strip() or text.rstrip().endswith("AND"):
        raise _refused(text, len(text))
    return Query(text, tuple(equalities), low, high)


def _narrowed(low: int, high: int, operator: str, height: int) -> tuple[int, int]:
    if operator in ("=", ">="):
        low = max(low, height)
    if operator in ("=", "<="):
        high = min(high, height)
    if operator == ">":
        low = max(low, height + 1)
    if operator == "<":
        high = min(high, height - 1)
    return low, high


def _refused(text: str, position: int) -> RpcError:
    return internal_error(
        f"failed to parse query: at {position} of {text!r}; served are tag='value' joined by AND, "
        "and bounds on tx.height"
    )
