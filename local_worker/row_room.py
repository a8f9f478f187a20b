"""Memory for rows of other stages that wait here, of all sessions of a provider together.

What one session may have waiting is bounded as well (`previous_stage`); but sessions are many, and whoever has
several may fill them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from local_worker.engine.errors import EngineBusy

WAITING_ALL_BYTES: Final = 64 << 20
"""With so much waiting in all sessions, one that has anything waiting reads no more from its link."""
GATHERED_ALL_BYTES: Final = 256 << 20
"""Of requests whose rows have come in part."""
KEPT_ALL_BYTES: Final = 256 << 20
"""Of rows that went to the next stage, and may have to go to another one once more."""
_SHARE: Final = 4
"""All three together take less than three parts in so many of the memory that engines leave in reserve."""


@dataclass(frozen=True, slots=True)
class RowMemory:
    """What rows may take of a provider's memory, in bytes, for all of its sessions together."""

    kept_bytes: int = KEPT_ALL_BYTES
    waiting_bytes: int = WAITING_ALL_BYTES
    gathered_bytes: int = GATHERED_ALL_BYTES

    @classmethod
    def within(cls, reserve_bytes: int) -> RowMemory:
        """As much as a reserve bears beside what else needs it."""
        part = reserve_bytes // _SHARE
        return cls(
            min(KEPT_ALL_BYTES, part), min(WAITING_ALL_BYTES, part // 2), min(GATHERED_ALL_BYTES, part)
        )


class RowRoom:
    """Counts bytes; whoever takes some gives them back."""

    def __init__(
        self, waiting_limit_bytes: int = WAITING_ALL_BYTES, gathered_limit_bytes: int = GATHERED_ALL_BYTES
    ) -> None:
        """Nothing waits yet."""
        self._waiting_limit_bytes = waiting_limit_bytes
        self._gathered_limit_bytes = gathered_limit_bytes
        self.waiting_bytes = 0
        self.gathered_bytes = 0

    @property
    def is_scarce(self) -> bool:
        """Whether only sessions that have nothing waiting may read on."""
        return self.waiting_bytes >= self._waiting_limit_bytes

    def gather(self, size: int) -> int:
        """Take room for a request whose rows come in several frames; returns its size.

        Raises:
            EngineBusy: other requests have taken it.
        """
        if self.gathered_bytes and self.gathered_bytes + size > self._gathered_limit_bytes:
            raise EngineBusy(
                f"{self.gathered_bytes >> 20} MiB of rows wait for the rest of their requests already",
                hint="try again in a moment, or another provider",
            )
        self.gathered_bytes += size
        return size
