"""Channels to standbys that were opened beforehand, so that one of them can go on at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, TypeVar

from dllm_protocol.errors import ChannelRefused, DllmError, MalformedBytes, NetworkUnreachable, TimedOut

UNREACHED: Final = (ChannelRefused, NetworkUnreachable, TimedOut, MalformedBytes)
"""What dialling a provider fails with."""
LIVES_S: Final = 1.0
"""A channel on which nothing comes back for so long is opened anew: this machine may have another network by now."""


class Spare(Protocol):
    """A leg that nothing is asked of yet."""

    @property
    def alive(self) -> bool:
        """Whether its channel stands."""
        ...

    async def answers(self, timeout_s: float) -> bool:
        """Whether a sign of life comes when it is asked for."""
        ...

    async def close(self, reason: str) -> None:
        """Hang up."""
        ...


Leg = TypeVar("Leg", bound=Spare)


class Spares(Generic[Leg]):
    """At most one channel to each provider, standing or being opened."""

    def __init__(self, dial: Callable[[bytes], Awaitable[Leg]]) -> None:
        """``dial``: opens a channel whose end is noticed before anything is asked of it."""
        self._dial = dial
        self._opening: dict[bytes, asyncio.Task[Leg]] = {}

    def __contains__(self, provider: bytes) -> bool:
        return provider in self._opening

    def open(self, provider: bytes) -> None:
        """Begin to open one in the background."""
        self._opening[provider] = asyncio.create_task(self._dialled(provider))

    def put(self, provider: bytes, leg: Leg) -> None:
        """One that stands."""
        self._opening[provider] = asyncio.create_task(_at_once(leg))

    async def take(self, provider: bytes) -> Leg | None:
        """The channel to a provider, if one stands and is heard on."""
        spare = self._opening.pop(provider, None)
        if spare is None:
            return None
        try:
            leg = await spare
        except DllmError:
            return None  # it did not answer then; it may now
        if leg.alive and await leg.answers(LIVES_S):
            return leg
        await leg.close("its channel failed")
        return None

    async def close(self, reason: str) -> None:
        """Hang up everywhere."""
        spares, self._opening = self._opening, {}
        for spare in spares.values():
            spare.cancel()
        found = await asyncio.gather(*spares.values(), return_exceptions=True)
        await asyncio.gather(*(leg.close(reason) for leg in found if not isinstance(leg, BaseException)))

    async def _dialled(self, provider: bytes) -> Leg:
        return await self._dial(provider)


async def _at_once(leg: Leg) -> Leg:
    return leg
