"""The served part of CometBFT's query language."""

from __future__ import annotations

import pytest

from dllm_protocol.jsonrpc.errors import RpcError
from dllm_protocol.jsonrpc.query import CONDITIONS_MAX, HEIGHT_MAX, parse_query


@pytest.mark.parametrize(
    ("text", "equalities", "low", "high"),
    [
        ("tm.event='Tx'", (("tm.event", "Tx"),), 0, HEIGHT_MAX),
        ("tm.event = 'NewBlock'", (("tm.event", "NewBlock"),), 0, HEIGHT_MAX),
        ("tx.height=5", (), 5, 5),
        ("tx.height>5 AND tx.height<=9", (), 6, 9),
        ("tx.height>=5 AND tx.height<9 AND a.b='c d'", (("a.b", "c d"),), 5, 8),
        ("a.b=7 AND c='x AND y'", (("a.b", "7"), ("c", "x AND y")), 0, HEIGHT_MAX),
    ],
)
def test_queries_are_read(text: str, equalities: tuple[tuple[str, str], ...], low: int, high: int) -> None:
    query = parse_query(text)
    assert (query.equalities, query.low, query.high) == (equalities, low, high)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a",
        "a=",
        "a=b",
        "a='b",
        "a='b' AND",
        "a='b' OR c='d'",
        "a='b' c='d'",
        "a>'b'",
        "a>5",
        "a EXISTS",
        "a CONTAINS 'b'",
        "tx.height='five'",
        "tx.height='²'",
        "tx.height='" + "9" * 40 + "'",
        "a='b';DROP TABLE txs",
        "x" * 600,
        " AND ".join(["a='b'"] * (CONDITIONS_MAX + 1)),
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(RpcError, match="failed to parse query"):
        parse_query(text)


def test_a_value_is_looked_up_by_its_tag() -> None:
    query = parse_query("tm.event='Tx' AND a='b'")
    assert (query.value("a"), query.value("c")) == ("b", None)
