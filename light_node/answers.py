"""What a full node answers, read strictly and believed by nobody yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dllm_protocol import merkle
from dllm_protocol.block import BLOCK_BYTES_MAX, tx_hash
from dllm_protocol.block_json import TXS_MAX, merkle_proof_from_json, tx_result_from_json
from dllm_protocol.comet_wire import UINT64_MAX
from dllm_protocol.commit import HASH_BYTES, UINT32_MAX
from dllm_protocol.json_shape import base64_bytes, hex_bytes, integer, items, number, shape, text
from dllm_protocol.results import ExecTxResult
from dllm_protocol.timestamp import Timestamp
from light_node.errors import SourceMalformed

PROOF_OP = "ics23:jmt"
PROOF_BYTES_MAX = 16 << 20
VALUE_BYTES_MAX = 16 << 20


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What a node says of itself."""

    chain_id: str
    latest_height: int
    latest_time: Timestamp
    earliest_height: int
    catching_up: bool


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """Answer to a question about the state."""

    code: int
    log: str
    height: int
    """The state after this block was asked."""
    key: bytes
    value: bytes
    proof: bytes
    """ICS-23 CommitmentProof; empty when none came."""


@dataclass(frozen=True, slots=True)
class BroadcastAnswer:
    """What the node's mempool said to a transaction; proves nothing about blocks."""

    code: int
    log: str
    hash: bytes


@dataclass(frozen=True, slots=True)
class TxAnswer:
    """Where a node says a transaction stands."""

    hash: bytes
    height: int
    index: int
    tx: bytes
    result: ExecTxResult
    proof: merkle.Proof | None


def status_from_json(value: object) -> SourceStatus:
    """Read the result of `status`; fields that nobody here needs are ignored."""
    result = _object("status", value)
    node = _object("status.node_info", result.get("node_info"))
    sync = _object("status.sync_info", result.get("sync_info"))
    catching_up = sync.get("catching_up", False)
    if not isinstance(catching_up, bool):
        raise SourceMalformed(f"status.catching_up is {type(catching_up).__name__}, not true or false")
    return SourceStatus(
        text("status.network", node.get("network"), 50),
        integer("status.latest_block_height", sync.get("latest_block_height"), 0),
        Timestamp.from_rfc3339(text("status.latest_block_time", sync.get("latest_block_time"), 40)),
        integer("status.earliest_block_height", sync.get("earliest_block_height", "1"), 0),
        catching_up,
    )


def query_from_json(value: object) -> QueryAnswer:
    """Read the result of `abci_query`."""
    response = _object("abci_query.response", _object("abci_query", value).get("response"))
    return QueryAnswer(
        number("abci_query.code", response.get("code", 0), 0, UINT32_MAX),
        text("abci_query.log", response.get("log", "")),
        integer("abci_query.height", response.get("height", "0"), 0),
        base64_bytes("abci_query.key", response.get("key"), 4096),
        base64_bytes("abci_query.value", response.get("value"), VALUE_BYTES_MAX),
        _proof_from_json(response.get("proofOps")),
    )


def _proof_from_json(value: object) -> bytes:
    if value is None:
        return b""
    ops = items("proofOps.ops", shape("proofOps", value, ("ops",))["ops"], 8)
    if not ops:
        return b""
    if len(ops) != 1:
        raise SourceMalformed(f"the answer has {len(ops)} proof operations, our tree needs 1")
    fields = shape("proof operation", ops[0], ("type", "key", "data"))
    if fields["type"] != PROOF_OP:
        raise SourceMalformed(f"proof operation is {str(fields['type'])[:40]!r}, not {PROOF_OP!r}")
    return base64_bytes("proof operation data", fields["data"], PROOF_BYTES_MAX)


def broadcast_from_json(value: object) -> BroadcastAnswer:
    """Read the result of `broadcast_tx_sync`."""
    fields = _object("broadcast_tx_sync", value)
    return BroadcastAnswer(
        number("broadcast_tx_sync.code", fields.get("code", 0), 0, UINT32_MAX),
        text("broadcast_tx_sync.log", fields.get("log", "")),
        hex_bytes("broadcast_tx_sync.hash", fields.get("hash"), (32,)),
    )


def evidence_name_from_json(value: object) -> bytes:
    """Read the result of `broadcast_evidence`, whose hash CometBFT writes in base64, unlike all others."""
    name = base64_bytes("broadcast_evidence.hash", _object("broadcast_evidence", value).get("hash"), 32)
    if len(name) != HASH_BYTES:
        raise SourceMalformed(f"broadcast_evidence.hash has {len(name)} bytes, not {HASH_BYTES}")
    return name


def tx_from_json(value: object) -> TxAnswer:
    """Read the result of `tx`, or one element of `tx_search`."""
    fields = shape("tx", value, ("hash", "height", "index", "tx_result", "tx"), ("proof",))
    tx = base64_bytes("tx.tx", fields["tx"], BLOCK_BYTES_MAX)
    claimed = hex_bytes("tx.hash", fields["hash"], (32,))
    if claimed != tx_hash(tx):
        raise SourceMalformed(f"tx.hash is {claimed.hex()}, the transaction's is {tx_hash(tx).hex()}")
    proof = None
    if fields.get("proof") is not None:
        outer = shape("tx.proof", fields["proof"], ("root_hash", "data", "proof"))
        inner = outer["proof"]
        if inner is not None and _object("tx.proof.proof", inner).get("total") not in (None, "0"):
            proof = merkle_proof_from_json(inner)
    return TxAnswer(
        claimed,
        integer("tx.height", fields["height"], 1),
        number("tx.index", fields["index"], 0, UINT32_MAX),
        tx,
        tx_result_from_json(fields["tx_result"]),
        proof,
    )


def tx_search_from_json(value: object) -> tuple[tuple[TxAnswer, ...], int]:
    """Read the result of `tx_search`: one page and the number of all matches."""
    fields = shape("tx_search", value, ("txs", "total_count"))
    found = tuple(tx_from_json(one) for one in items("tx_search.txs", fields["txs"], 100))
    return found, integer("tx_search.total_count", fields["total_count"], 0)


def block_results_from_json(value: object) -> tuple[int, tuple[ExecTxResult, ...]]:
    """Read the result of `block_results`: its height and the results in order."""
    fields = _object("block_results", value)
    listed = items("block_results.txs_results", fields.get("txs_results"), TXS_MAX)
    height = integer("block_results.height", fields.get("height"), 1, UINT64_MAX)
    return height, tuple(tx_result_from_json(one) for one in listed)


def _object(name: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise SourceMalformed(f"{name} is {type(value).__name__}, not an object")
    return value
