"""The node's numbers as families of Prometheus."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dllm_protocol.exposition import Family, MetricKind, Sample, counter, gauge
from full_node.consensus.engine import MempoolView
from full_node.metrics.counts import NodeCounts
from full_node.state.store import Store


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What stays the same while a node runs."""

    chain_id: str
    engine: str
    version: str
    database: Path


def node_families(
    facts: NodeFacts, counts: NodeCounts, store: Store, waiting: MempoolView | None
) -> Iterator[Family]:
    """Every family of a node.

    Args:
        waiting: the mempool; None where CometBFT has it and tells of it itself.
    """
    labels = {"chain_id": facts.chain_id, "engine": facts.engine, "version": facts.version}
    yield Family("dllm_node_info", MetricKind.GAUGE, "Which node this is; always 1.", (Sample(1, labels),))
    yield gauge("dllm_node_height", "Height of the newest block whose state is on the disk.", store.version)
    yield gauge(
        "dllm_node_block_time_seconds", "Block time of that block, since 1970 (UTC).", counts.block_time_s
    )
    yield counter("dllm_node_blocks_total", "Blocks since the start.", counts.blocks)
    yield counter("dllm_node_block_txs_total", "Transactions in those blocks.", counts.block_txs)
    checked = (
        Sample(counts.txs_accepted, {"verdict": "accepted"}),
        Sample(counts.txs_refused, {"verdict": "refused"}),
    )
    yield Family(
        "dllm_node_checked_txs_total", MetricKind.COUNTER, "Transactions that CheckTx judged.", checked
    )
    yield counts.check_s.family("dllm_node_check_seconds", "Time that CheckTx took.")
    yield counts.finalize_s.family("dllm_node_finalize_seconds", "Time that executing a block took.")
    yield gauge("dllm_node_state_bytes", "Size of the database on the disk.", _size_bytes(facts.database))
    yield counter("dllm_node_proofs_total", "State proofs given since the start.", store.proofs_given)
    if waiting is not None:
        yield gauge("dllm_node_mempool_txs", "Transactions that wait for a block.", waiting.count)
        yield gauge("dllm_node_mempool_bytes", "Their size.", waiting.total_bytes)
        yield counts.rpc_requests.family(
            "dllm_node_rpc_requests_total", "Calls by method and outcome: ok, or the JSON-RPC error's number."
        )


def _size_bytes(database: Path) -> int:
    size = 0
    for name in ("", "-wal"):
        try:
            size += os.stat(f"{database}{name}").st_size  # noqa: PTH116 - a suffix behind the file's own
        except FileNotFoundError:
            continue
    return size
