"""Channels to standbys that were opened beforehand, so that one of them can go on at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from dllm_chat.session.stage_leg import StageLeg
from dllm_protocol.errors import ChannelRefused, MalformedBytes, NetworkUnreachable, TimedOut

UNREACHED: Final = (ChannelRefused, NetworkUnreachable, TimedOut, MalformedBytes)
"""What dialling a provider fails with."""


class Spares:
    """At most one channel to each provider, standing or being opened."""

    def __init__(self, dial: Callable[[bytes], Awaitable[StageLeg]]) -> None:
        self._dial = dial
        self._opening: dict[bytes, asyncio.Task[StageLeg]] = {}

    def __contains__(self, provider: bytes) -> bool:
        return provider in self._opening

    def open(self, provider: bytes) -> None:
        """Begin to open one in the background."""
        self._opening[provider] = asyncio.create_task(self.warm(provider))

    def put(self, provider: bytes, leg: StageLeg) -> None:
        """One that stands."""
        self._opening[provider] = asyncio.create_task(_at_once(leg))

    async def warm(self, provider: bytes) -> StageLeg:
        """A leg that is read, so that its end is noticed.

        Raises:
            Any of `UNREACHED`.
        """
        leg = await self._dial(provider)
        leg.read(lambda _, __: None, lambda: None)
        return leg

    async def take(self, provider: bytes) -> StageLeg | None:
        """The channel to a provider, if one stands."""
        spare = self._opening.pop(provider, None)
        if spare is None:
            return None
        try:
            leg = await spare
        except UNREACHED:
            return None  # it did not answer then; it may now
        if leg.alive:
            return leg
        await leg.close("its channel failed")
        return None

    async def close(self, reason: str) -> None:
        """Hang up everywhere."""
        spares, self._opening = self._opening, {}
        for spare in spares.values():
            spare.cancel()
        found = await asyncio.gather(*spares.values(), return_exceptions=True)
        await asyncio.gather(*(leg.close(reason) for leg in found if isinstance(leg, StageLeg)))


async def _at_once(leg: StageLeg) -> StageLeg:
    return leg
