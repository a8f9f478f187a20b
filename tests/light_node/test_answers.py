"""Answers of a node: whatever JSON comes, only declared errors come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.block import tx_hash
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.json_shape import to_base64, to_hex
from light_node.answers import (
    block_results_from_json,
    broadcast_from_json,
    query_from_json,
    status_from_json,
    tx_from_json,
    tx_search_from_json,
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
GOOD: dict[str, tuple[Callable[[object], object], dict[str, Any]]] = {
    "status": (
        status_from_json,
        {
            "node_info": {"network": "chain"},
            "sync_info": {
                "latest_block_height": "5",
                "latest_block_time": "2026-01-01T00:00:00Z",
                "earliest_block_height": "1",
                "catching_up": False,
            },
        },
    ),
    "query": (
        query_from_json,
        {
            "response": {
                "code": 0,
                "log": "",
                "height": "5",
                "key": "YQ==",
                "value": None,
                "proofOps": {"ops": [{"type": "ics23:jmt", "key": "YQ==", "data": "YQ=="}]},
            }
        },
    ),
    "broadcast": (broadcast_from_json, {"code": 0, "log": "", "hash": "AB" * 32}),
    "tx": (
        tx_from_json,
        {
            "hash": to_hex(tx_hash(b"tx")),
            "height": "5",
            "index": 0,
            "tx_result": {"code": 0},
            "tx": to_base64(b"tx"),
            "proof": {
                "root_hash": "",
                "data": "",
                "proof": {"total": "1", "index": "0", "leaf_hash": "", "aunts": []},
            },
        },
    ),
    "tx_search": (tx_search_from_json, {"txs": [], "total_count": "0"}),
    "block_results": (block_results_from_json, {"height": "5", "txs_results": [{"code": 0}]}),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_answers_are_read(name: str) -> None:
    read, value = GOOD[name]
    assert read(value) is not None


def _changed(value: Any, path: list[int], new: object) -> Any:
    """A copy with one place, found by walking `path`, replaced."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[key] = _changed(value[key], path[1:], new)
    return copied


@given(st.sampled_from(sorted(GOOD)), st.lists(st.integers(0, 9), max_size=6), JSON_VALUES)
def test_one_changed_place_gives_an_answer_or_a_declared_error(
    name: str, path: list[int], new: object
) -> None:
    read, value = GOOD[name]
    try:
        assert read(_changed(value, path, new)) is not None
    except MalformedBytes as error:
        assert error.message


@pytest.mark.parametrize(
    ("ops", "words"),
    [
        ([{"type": "ics23:iavl", "key": "", "data": ""}], "not 'ics23:jmt'"),
        ([{"type": "ics23:jmt", "key": "", "data": ""}] * 2, "has 2 proof operations"),
        ([{}] * 9, "9 elements, at most 8"),
    ],
)
def test_other_proofs_are_refused(ops: list[object], words: str) -> None:
    with pytest.raises(MalformedBytes, match=words):
        query_from_json({"response": {"height": "5", "proofOps": {"ops": ops}}})


def test_a_hash_that_is_not_the_transaction_s_is_refused() -> None:
    _, value = GOOD["tx"]
    with pytest.raises(MalformedBytes, match=tx_hash(b"tx").hex()):
        tx_from_json(value | {"hash": "AB" * 32})
