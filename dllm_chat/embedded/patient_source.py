"""The embedded network's node as a source that waits while its supervisor starts it again.

A node that was killed is back within seconds, at the same address. Questions may simply be asked again; a transaction
may not, because the answer that was lost may have been that it is taken: `light_node.sending` finds that out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from dllm_chat.embedded.wire import SupervisorLost
from dllm_protocol.block import Block, SignedHeader
from dllm_protocol.commit import BlockID
from dllm_protocol.evidence import Evidence
from dllm_protocol.results import ExecTxResult
from dllm_protocol.validator_set import ValidatorSet
from light_node.answers import BroadcastAnswer, QueryAnswer, SourceStatus, TxAnswer
from light_node.errors import SourceUnreachable
from light_node.source import Source

PATIENCE_S = 10.0
PAUSE_S = 0.1

T = TypeVar("T")


class PatientSource:
    """Implements `light_node.source.Source` on another source."""

    def __init__(self, source: Source, is_over: Callable[[], bool]) -> None:
        """Prepare.

        Args:
            is_over: whether the supervisor is gone, so that nobody will start the node again.
        """
        self._source = source
        self._is_over = is_over

    @property
    def name(self) -> str:
        """See `Source`."""
        return self._source.name

    async def status(self) -> SourceStatus:
        """See `Source`."""
        return await self._patiently(self._source.status)

    async def signed_header(self, height: int | None) -> SignedHeader:
        """See `Source`."""
        return await self._patiently(lambda: self._source.signed_header(height))

    async def validators(self, height: int) -> ValidatorSet:
        """See `Source`."""
        return await self._patiently(lambda: self._source.validators(height))

    async def block(self, height: int) -> tuple[BlockID, Block]:
        """See `Source`."""
        return await self._patiently(lambda: self._source.block(height))

    async def block_results(self, height: int) -> tuple[ExecTxResult, ...]:
        """See `Source`."""
        return await self._patiently(lambda: self._source.block_results(height))

    async def abci_query(self, path: str, data: bytes, height: int, *, prove: bool) -> QueryAnswer:
        """See `Source`."""
        return await self._patiently(lambda: self._source.abci_query(path, data, height, prove=prove))

    async def broadcast_tx_sync(self, tx: bytes) -> BroadcastAnswer:
        """See `Source`; asked once only."""
        return await self._source.broadcast_tx_sync(tx)

    async def broadcast_evidence(self, evidence: Evidence) -> bytes:
        """See `Source`."""
        return await self._patiently(lambda: self._source.broadcast_evidence(evidence))

    async def tx(self, tx_hash: bytes) -> TxAnswer | None:
        """See `Source`."""
        return await self._patiently(lambda: self._source.tx(tx_hash))

    async def tx_search(self, query: str, page: int, per_page: int) -> tuple[tuple[TxAnswer, ...], int]:
        """See `Source`."""
        return await self._patiently(lambda: self._source.tx_search(query, page, per_page))

    def new_heights(self) -> AsyncIterator[int]:
        """See `Source`."""
        return self._source.new_heights()

    async def close(self) -> None:
        """See `Source`."""
        await self._source.close()

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        while True:
            try:
                return await ask()
            except SourceUnreachable as error:
                if self._is_over():
                    raise SupervisorLost(
                        "the embedded network has ended", hint="ask again: it is started anew"
                    ) from error
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(PAUSE_S)
