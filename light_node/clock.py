"""The light node's only door to time."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from dllm_protocol.timestamp import Timestamp


class Clock(Protocol):
    """Somebody who knows the time and can wait."""

    def now(self) -> Timestamp:
        """Return the time in UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never jumps; only differences mean something."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> Timestamp:
        """Return the machine's time in UTC."""
        return Timestamp.from_ns(time.time_ns())

    def monotonic_s(self) -> float:
        """Return the machine's monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
