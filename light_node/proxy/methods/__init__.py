"""The RPC methods that the proxy answers, and those that it refuses with a reason."""

from __future__ import annotations

from light_node.proxy.context import Methods
from light_node.proxy.methods import blocks, info, search, state, transactions

METHODS: Methods = {
    **info.METHODS,
    **blocks.METHODS,
    **state.METHODS,
    **transactions.METHODS,
    **search.METHODS,
}
"""Every method that HTTP and websocket share."""

REFUSED = {
    "net_info": "who a node's peers are",
    "consensus_state": "what a node votes on",
    "dump_consensus_state": "what a node votes on",
    "unconfirmed_txs": "which transactions wait at a node",
    "num_unconfirmed_txs": "how many transactions wait at a node",
    "check_tx": "what a node's mempool thinks of a transaction",
    "block_search": "which blocks had an event",
}
"""A full node's methods that no header proves anything about, and what they ask."""
