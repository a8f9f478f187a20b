"""What the proxy asks a full node beyond what a light node asks."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from dllm_protocol.block_json import header_from_json, tx_result_from_json
from dllm_protocol.json_shape import hex_bytes, integer, shape, to_base64
from dllm_protocol.results import ExecTxResult
from light_node.answers import BroadcastAnswer, broadcast_from_json
from light_node.source import RpcSource, Source

BROADCAST_COMMIT_TIMEOUT_S = 20.0


@runtime_checkable
class Upstream(Source, Protocol):
    """A full node behind the proxy."""

    async def height_of(self, block_hash: bytes) -> int | None:
        """Return the height at which the node says a block lies; None when it knows none."""
        ...

    async def broadcast_tx_async(self, tx: bytes) -> BroadcastAnswer:
        """Hand in a transaction without waiting for the mempool."""
        ...

    async def broadcast_tx_commit(self, tx: bytes) -> tuple[ExecTxResult, int]:
        """Hand in a transaction and wait: what CheckTx said, and the height claimed (0: in no block)."""
        ...


class UpstreamSource(RpcSource):
    """A full node behind CometBFT's JSON-RPC, with the calls of `Upstream`."""

    async def height_of(self, block_hash: bytes) -> int | None:
        """See `Upstream`."""
        answer = shape(
            "header_by_hash", await self._rpc.call("header_by_hash", _hash(block_hash)), ("header",)
        )
        return None if answer["header"] is None else header_from_json(answer["header"]).height

    async def broadcast_tx_async(self, tx: bytes) -> BroadcastAnswer:
        """See `Upstream`."""
        return broadcast_from_json(await self._rpc.call("broadcast_tx_async", {"tx": to_base64(tx)}))

    async def broadcast_tx_commit(self, tx: bytes) -> tuple[ExecTxResult, int]:
        """See `Upstream`."""
        answer = await self._rpc.call(
            "broadcast_tx_commit", {"tx": to_base64(tx)}, timeout_s=BROADCAST_COMMIT_TIMEOUT_S
        )
        fields = shape("broadcast_tx_commit", answer, ("check_tx", "tx_result", "hash", "height"))
        hex_bytes("broadcast_tx_commit.hash", fields["hash"], (32,))
        return tx_result_from_json(fields["check_tx"]), integer("height", fields["height"], 0)


def _hash(block_hash: bytes) -> dict[str, object]:
    return {"hash": block_hash.hex().upper()}
