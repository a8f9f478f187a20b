"""Who wants to hear of new blocks: bounded queues, so that a slow listener costs itself and nobody else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from full_node.consensus.engine import CommittedBlock

QUEUED_BLOCKS_MAX = 100


class Subscription:
    """One listener's queue of blocks."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[CommittedBlock | None] = asyncio.Queue(QUEUED_BLOCKS_MAX + 1)
        self.lagged = False
        """Whether the listener fell behind and was dropped."""

    def offer(self, block: CommittedBlock) -> bool:
        """Queues a block; False when the listener fell behind, which ends its subscription."""
        if self._queue.qsize() >= QUEUED_BLOCKS_MAX:
            self.lagged = True
            self.end()
            return False
        self._queue.put_nowait(block)
        return True

    def end(self) -> None:
        """Nothing more will come."""
        if not self._queue.full():
            self._queue.put_nowait(None)

    async def next(self) -> CommittedBlock | None:
        """The next block; None when the subscription has ended."""
        return await self._queue.get()


class EventBus:
    """Hands every committed block to every listener; lives on the event loop's thread."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def subscribe(self) -> Subscription:
        """Starts to listen."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stops to listen; doing it twice is harmless."""
        self._subscriptions.discard(subscription)
        subscription.end()

    def publish(self, block: CommittedBlock) -> None:
        """Tells everybody of a block."""
        for subscription in list(self._subscriptions):
            if not subscription.offer(block):
                self._subscriptions.discard(subscription)

    def close(self) -> None:
        """Ends every subscription."""
        for subscription in list(self._subscriptions):
            self.unsubscribe(subscription)
