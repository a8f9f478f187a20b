"""Which transactions a proposed block may hold, and in which order this node proposes them.

The bounds are consensus: every validator refuses a block that breaks them, whoever proposed it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence

from dllm_protocol.consensus_params import BLOCK_TX_BYTES_MAX, BLOCK_TXS_MAX, TX_OVERHEAD_BYTES
from dllm_protocol.params import BLOCK_WEIGHT_MAX
from full_node.consensus.engine import Appraisal

Appraise = Callable[[bytes], Appraisal | None]


def order_by_priority(txs: Sequence[bytes], appraise: Appraise) -> list[tuple[bytes, Appraisal]]:
    """The highest fee per weight first, each sender's transactions by sequence; what is none is left out.

    A sender's later transactions cannot pass its earlier ones, however well they pay. Ties go to who came first.
    """
    queues: dict[bytes, list[tuple[int, int, bytes, Appraisal]]] = {}
    for arrival, raw in enumerate(txs):
        appraisal = appraise(raw)
        if appraisal is not None:
            queues.setdefault(appraisal.sender, []).append((appraisal.sequence, arrival, raw, appraisal))
    waiting = {sender: deque(sorted(queue)) for sender, queue in queues.items()}
    heads = [(-queue[0][3].priority, queue[0][1], sender) for sender, queue in waiting.items()]
    heapq.heapify(heads)
    ordered: list[tuple[bytes, Appraisal]] = []
    while heads:
        _, _, sender = heapq.heappop(heads)
        queue = waiting[sender]
        _, _, raw, appraisal = queue.popleft()
        ordered.append((raw, appraisal))
        if queue:
            heapq.heappush(heads, (-queue[0][3].priority, queue[0][1], sender))
    return ordered


def fitting(ordered: Sequence[tuple[bytes, Appraisal]], max_tx_bytes: int) -> list[bytes]:
    """As many as a block holds, in the order given.

    Args:
        max_tx_bytes: what CometBFT leaves for transactions with their overhead, besides our own bounds.
    """
    taken: list[bytes] = []
    closed: set[bytes] = set()
    size = weight = 0
    room = min(max_tx_bytes, BLOCK_TX_BYTES_MAX)
    for raw, appraisal in ordered:
        if appraisal.sender in closed:
            continue
        longer, heavier = size + len(raw) + TX_OVERHEAD_BYTES, weight + appraisal.weight
        if len(taken) == BLOCK_TXS_MAX or longer > room or heavier > BLOCK_WEIGHT_MAX:
            # Whatever this sender sent after it would come before its turn.
            closed.add(appraisal.sender)
            continue
        taken.append(raw)
        size, weight = longer, heavier
    return taken


def reason_to_reject(txs: Sequence[bytes], appraise: Appraise) -> str:
    """Why the next block may not hold these transactions, whatever they do; empty when nothing is wrong."""
    if len(txs) > BLOCK_TXS_MAX:
        return f"{len(txs)} transactions, at most {BLOCK_TXS_MAX} are allowed"
    size = sum(len(raw) + TX_OVERHEAD_BYTES for raw in txs)
    if size > BLOCK_TX_BYTES_MAX:
        return f"{size} bytes of transactions, at most {BLOCK_TX_BYTES_MAX} are allowed"
    weight = 0
    for place, raw in enumerate(txs):
        appraisal = appraise(raw)
        if appraisal is None:
            return f"transaction {place} is none"
        weight += appraisal.weight
    if weight > BLOCK_WEIGHT_MAX:
        return f"transactions of weight {weight}, at most {BLOCK_WEIGHT_MAX} is allowed"
    return ""
