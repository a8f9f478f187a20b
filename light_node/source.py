"""The light node's only door to the network: what it may ask a full node.

A source checks that an answer is *about* what was asked (height, size, shape); whether it is true is decided elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from dllm_protocol.block import Block, SignedHeader
from dllm_protocol.block_json import (
    block_from_json,
    block_id_from_json,
    evidence_to_json,
    header_from_json,
    signed_header_from_json,
    validators_page_from_json,
)
from dllm_protocol.commit import BlockID
from dllm_protocol.evidence import Evidence
from dllm_protocol.json_shape import shape, to_base64
from dllm_protocol.results import ExecTxResult
from dllm_protocol.validator_set import VALIDATORS_MAX, Validator, ValidatorSet
from light_node.answers import (
    BroadcastAnswer,
    QueryAnswer,
    SourceStatus,
    TxAnswer,
    block_results_from_json,
    broadcast_from_json,
    evidence_name_from_json,
    query_from_json,
    status_from_json,
    tx_from_json,
    tx_search_from_json,
)
from light_node.errors import AnswerRefused, SourceMalformed, SourceRefusal, SourceTimedOut
from light_node.rpc_connection import CALL_TIMEOUT_S, MESSAGE_BYTES_MAX, RpcConnection

VALIDATORS_PER_PAGE = 100
VALIDATORS_TIMEOUT_S = 30.0
"""Longest wait for all pages of a validator set together."""
STATUS_BYTES_MAX = 64 << 10
COMMIT_BYTES_MAX = 6 << 20
"""Enough for the signatures of CometBFT's largest validator set."""
VALIDATORS_PAGE_BYTES_MAX = 256 << 10
PAGES_MAX = VALIDATORS_MAX // VALIDATORS_PER_PAGE
NEW_HEADER_QUERY = "tm.event='NewBlockHeader'"


class Source(Protocol):
    """A full node, friendly or not."""

    @property
    def name(self) -> str:
        """How to call it in messages."""
        ...

    async def status(self) -> SourceStatus:
        """Return what the node says of itself."""
        ...

    async def signed_header(self, height: int | None) -> SignedHeader:
        """Return the header and commit at a height, or the latest."""
        ...

    async def validators(self, height: int) -> ValidatorSet:
        """Return the validators of a height (also of the one after the latest)."""
        ...

    async def block(self, height: int) -> tuple[BlockID, Block]:
        """Return a whole block."""
        ...

    async def block_results(self, height: int) -> tuple[ExecTxResult, ...]:
        """Return the results of a block's transactions, in order."""
        ...

    async def abci_query(self, path: str, data: bytes, height: int, *, prove: bool) -> QueryAnswer:
        """Ask the state after block `height` (0: the latest)."""
        ...

    async def broadcast_tx_sync(self, tx: bytes) -> BroadcastAnswer:
        """Hand in a transaction; returns after the mempool judged it."""
        ...

    async def broadcast_evidence(self, evidence: Evidence) -> bytes:
        """Hand in evidence of misbehaviour; return the name that the node gives it, once it has judged it."""
        ...

    async def tx(self, tx_hash: bytes) -> TxAnswer | None:
        """Return where a transaction stands, with proof; None when the node does not know it."""
        ...

    async def tx_search(self, query: str, page: int, per_page: int) -> tuple[tuple[TxAnswer, ...], int]:
        """Return one page of the transactions that match, and how many match."""
        ...

    def new_heights(self) -> AsyncIterator[int]:
        """Yield the height of each new block as the node announces it."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


class RpcSource:
    """A full node behind CometBFT's JSON-RPC on a websocket."""

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        timeout_s: float = CALL_TIMEOUT_S,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        """See `RpcConnection`; `url` is ws://host:port/websocket."""
        self._rpc = RpcConnection(url, token=token, timeout_s=timeout_s, message_bytes_max=message_bytes_max)

    @property
    def name(self) -> str:
        """The node's address."""
        return self._rpc.url

    async def status(self) -> SourceStatus:
        """See `Source`."""
        return status_from_json(await self._rpc.call("status", {}, bytes_max=STATUS_BYTES_MAX))

    async def signed_header(self, height: int | None) -> SignedHeader:
        """See `Source`."""
        params = {} if height is None else {"height": str(height)}
        answer = await self._rpc.call("commit", params, bytes_max=COMMIT_BYTES_MAX)
        fields = shape("commit", answer, ("signed_header",), ("canonical",))
        signed = signed_header_from_json(fields["signed_header"])
        if height is not None and signed.header.height != height:
            raise self._other("header height", height, signed.header.height)
        return signed

    async def validators(self, height: int) -> ValidatorSet:
        """See `Source`."""
        try:
            async with asyncio.timeout(VALIDATORS_TIMEOUT_S):
                return await self._paged_validators(height)
        except TimeoutError as error:
            raise SourceTimedOut(
                f"{self.name} did not list the validators of height {height} within {VALIDATORS_TIMEOUT_S:g} s",
                hint="try again, or another node",
            ) from error

    async def _paged_validators(self, height: int) -> ValidatorSet:
        members: list[Validator] = []
        for page in range(1, PAGES_MAX + 1):
            params = {"height": str(height), "page": str(page), "per_page": str(VALIDATORS_PER_PAGE)}
            answer = await self._rpc.call("validators", params, bytes_max=VALIDATORS_PAGE_BYTES_MAX)
            found_height, found, total = validators_page_from_json(answer)
            if found_height != height:
                raise self._other("validators' height", height, found_height)
            members.extend(found)
            if len(members) >= total:
                return ValidatorSet.listed(members)
            if not found:
                break
        raise SourceMalformed(
            f"{self.name} pages {len(members)} validators of height {height} and then stops"
        )

    async def block(self, height: int) -> tuple[BlockID, Block]:
        """See `Source`."""
        answer = await self._rpc.call("block", {"height": str(height)}, bytes_max=MESSAGE_BYTES_MAX)
        fields = shape("block", answer, ("block_id", "block"))
        block = block_from_json(fields["block"])
        if block.header.height != height:
            raise self._other("block height", height, block.header.height)
        return block_id_from_json(fields["block_id"]), block

    async def block_results(self, height: int) -> tuple[ExecTxResult, ...]:
        """See `Source`."""
        answer = await self._rpc.call("block_results", {"height": str(height)}, bytes_max=MESSAGE_BYTES_MAX)
        found, results = block_results_from_json(answer)
        if found != height:
            raise self._other("block results' height", height, found)
        return results

    async def abci_query(self, path: str, data: bytes, height: int, *, prove: bool) -> QueryAnswer:
        """See `Source`."""
        params = {"path": path, "data": data.hex(), "height": str(height), "prove": prove}
        return query_from_json(await self._rpc.call("abci_query", params, bytes_max=MESSAGE_BYTES_MAX))

    async def broadcast_tx_sync(self, tx: bytes) -> BroadcastAnswer:
        """See `Source`."""
        return broadcast_from_json(await self._rpc.call("broadcast_tx_sync", {"tx": to_base64(tx)}))

    async def broadcast_evidence(self, evidence: Evidence) -> bytes:
        """See `Source`."""
        answer = await self._rpc.call("broadcast_evidence", {"evidence": evidence_to_json(evidence)})
        return evidence_name_from_json(answer)

    async def tx(self, tx_hash: bytes) -> TxAnswer | None:
        """See `Source`."""
        try:
            answer = await self._rpc.call(
                "tx", {"hash": to_base64(tx_hash), "prove": True}, bytes_max=MESSAGE_BYTES_MAX
            )
        except SourceRefusal as error:
            if "not found" in error.message:
                return None
            raise
        found = tx_from_json(answer)
        if found.hash != tx_hash:
            raise self._other("transaction", tx_hash.hex(), found.hash.hex())
        return found

    async def tx_search(self, query: str, page: int, per_page: int) -> tuple[tuple[TxAnswer, ...], int]:
        """See `Source`."""
        params = {
            "query": query,
            "prove": True,
            "page": str(page),
            "per_page": str(per_page),
            "order_by": "desc",
        }
        return tx_search_from_json(await self._rpc.call("tx_search", params, bytes_max=MESSAGE_BYTES_MAX))

    async def new_heights(self) -> AsyncIterator[int]:
        """See `Source`."""
        async for event in self._rpc.events(NEW_HEADER_QUERY):
            data = shape("event", event, ("query", "data"), ("events",))["data"]
            value = shape("event.data", data, ("type", "value"))["value"]
            if not isinstance(value, dict):
                raise SourceMalformed(f"event value is {type(value).__name__}, not an object")
            yield header_from_json(value.get("header")).height

    async def close(self) -> None:
        """See `Source`."""
        await self._rpc.close()

    def _other(self, what: str, asked: int | str, answered: int | str) -> AnswerRefused:
        return AnswerRefused(f"{self.name}: {what} asked {asked}, answered {answered}")
