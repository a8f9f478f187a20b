"""CometBFT v0.38's RPC methods, by subject."""

from __future__ import annotations

from full_node.rpc.context import Methods
from full_node.rpc.methods import blocks, evidence, info, search, state, transactions

METHODS: Methods = {
    **info.METHODS,
    **blocks.METHODS,
    **state.METHODS,
    **transactions.METHODS,
    **evidence.METHODS,
    **search.METHODS,
}
"""Every method that HTTP and websocket share."""
