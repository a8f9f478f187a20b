"""What a transaction can be found by, worked out from proved bytes rather than from a node's events.

No hash covers events. Yet what some of them say stands in the transaction itself, and in whether it succeeded.
"""

from __future__ import annotations

from dllm_protocol.actions import Transfer
from dllm_protocol.block import tx_hash
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.json_shape import to_hex
from dllm_protocol.jsonrpc.query import Query
from dllm_protocol.results import ExecTxResult
from dllm_protocol.transaction import Transaction
from light_node.proxy.errors import Unprovable

Tags = dict[str, list[str]]
SERVED = frozenset(
    {"tm.event", "tx.hash", "tx.height", "fee.account", "transfer.sender", "transfer.recipient"}
)
"""Tags whose values are proved."""


def require_served(query: Query) -> None:
    """Refuse a query about what nothing proves. Raises Unprovable."""
    for name, _ in query.equalities:
        if name not in SERVED:
            raise Unprovable(
                f"whether a transaction has {name!r} is proved by nothing",
                hint=f"conditions that are proved: {', '.join(sorted(SERVED))}",
            )


def tags_of(raw: bytes, result: ExecTxResult, height: int) -> Tags:
    """The proved tags of a transaction in a block."""
    tags: Tags = {"tm.event": ["Tx"], "tx.hash": [to_hex(tx_hash(raw))], "tx.height": [str(height)]}
    try:
        body = Transaction.decode(raw).body
    except MalformedBytes:
        return tags  # a block may carry bytes that are no transaction of ours; they only have a place
    if result.code == 0 or result.gas_used:
        tags["fee.account"] = [body.account.hex()]
    transfers = [one for one in body.actions if isinstance(one, Transfer)] if result.code == 0 else []
    if transfers:
        tags["transfer.sender"] = [body.account.hex()]
        tags["transfer.recipient"] = [one.recipient.hex() for one in transfers]
    return tags


def fits(query: Query, tags: Tags, height: int) -> bool:
    """Whether something of a height with these tags is what a query asks for."""
    in_range = query.low <= height <= query.high
    return in_range and all(value in tags.get(name, ()) for name, value in query.equalities)
