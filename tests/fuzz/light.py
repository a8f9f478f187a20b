"""Decoders of `light_node`: what a full node answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from dllm_protocol import merkle
from dllm_protocol.block import tx_hash
from dllm_protocol.block_json import merkle_proof_to_json, tx_result_to_json
from dllm_protocol.json_shape import to_base64, to_hex
from dllm_protocol.results import ExecTxResult
from light_node.answers import (
    block_results_from_json,
    broadcast_from_json,
    evidence_name_from_json,
    query_from_json,
    status_from_json,
    tx_from_json,
    tx_search_from_json,
)
from light_node.rpc_connection import RpcConnection, _refusal
from tests.fuzz.decoder import Decoder, from_json, parsed
from tests.fuzz.protocol import as_json

_TX = b"a transaction"
_RESULT = tx_result_to_json(ExecTxResult(log="words"))
_FOUND: dict[str, Any] = {
    "hash": to_hex(tx_hash(_TX)),
    "height": "3",
    "index": 0,
    "tx_result": _RESULT,
    "tx": to_base64(_TX),
    "proof": {
        "root_hash": to_hex(b"\x01" * 32),
        "data": to_base64(_TX),
        "proof": merkle_proof_to_json(merkle.proof([_TX, b"other"], 0)),
    },
}
_STATUS = {
    "node_info": {"network": "signed-chain"},
    "sync_info": {
        "latest_block_height": "7",
        "latest_block_time": "2026-01-01T00:00:00Z",
        "earliest_block_height": "1",
        "catching_up": False,
    },
}
_QUERY = {
    "response": {
        "code": 0,
        "log": "",
        "info": "",
        "index": "0",
        "key": to_base64(b"key"),
        "value": to_base64(b"value"),
        "proofOps": {"ops": [{"type": "ics23:jmt", "key": to_base64(b"key"), "data": to_base64(b"proof")}]},
        "height": "3",
        "codespace": "",
    }
}


def _message(data: bytes) -> None:
    """A frame of the websocket, outside of any call."""
    RpcConnection("ws://127.0.0.1:1/websocket")._dispatch(data)


def _error(data: bytes) -> None:
    """The error member of an answer becomes a refusal that can be shown."""
    raise _refusal(parsed(data))


def decoders() -> list[Decoder]:
    """Answers of JSON-RPC."""
    table: list[tuple[str, Callable[[bytes], object], Any]] = [
        ("answers.status_from_json", from_json(status_from_json), _STATUS),
        ("answers.query_from_json", from_json(query_from_json), _QUERY),
        (
            "answers.broadcast_from_json",
            from_json(broadcast_from_json),
            {"code": 0, "data": "", "log": "", "codespace": "", "hash": to_hex(tx_hash(_TX))},
        ),
        (
            "answers.evidence_name_from_json",
            from_json(evidence_name_from_json),
            {"hash": to_base64(b"\x01" * 32)},
        ),
        ("answers.tx_from_json", from_json(tx_from_json), _FOUND),
        (
            "answers.tx_search_from_json",
            from_json(tx_search_from_json),
            {"txs": [_FOUND], "total_count": "1"},
        ),
        (
            "answers.block_results_from_json",
            from_json(block_results_from_json),
            {"height": "3", "txs_results": [_RESULT]},
        ),
        ("rpc_connection.RpcConnection._dispatch", _message, {"jsonrpc": "2.0", "id": 1, "result": {}}),
        (
            "rpc_connection._refusal",
            _error,
            {"code": -32603, "message": "Internal error", "data": json.dumps({"height": "7"})},
        ),
    ]
    return [
        Decoder(f"light_node.{name}", "answers", read, (as_json(example),), is_json=True)
        for name, read, example in table
    ]
