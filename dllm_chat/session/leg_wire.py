"""Frames to one provider and messages from it, with deadlines and signs of life."""

from __future__ import annotations

import time
from collections.abc import Callable

from dllm_chat.session.front_desk import LegFailed
from dllm_chat.session.patience import BEAT_S, SILENT_S
from dllm_protocol.encoding import Record
from dllm_protocol.errors import ChannelRefused, MalformedBytes, NetworkUnreachable, TimedOut
from dllm_protocol.messages import Goodbye, Pong
from dllm_protocol.session.client import ClientLeg
from light_node.channel.client import Channel
from light_node.channel.errors import ChannelTimedOut

_NONCE, _BEAT_NONCE = 1, 2


class LegWire:
    """The way to a provider. Every failure comes out as `LegFailed`.

    Args:
        store: called before anything is sent, which may promise money.
    """

    def __init__(self, channel: Channel, leg: ClientLeg, store: Callable[[], None]) -> None:
        self._channel = channel
        self._leg = leg
        self._store = store
        self._backlog: list[Record] = []
        self._pinged_s: float | None = None
        self._silent_since_s: float | None = None
        """When a sign of life was asked for that has not come; None: none is owed."""
        self.round_trip_s: float | None = None
        """Time of a message's way there and back with no decoding in it; None until it was measured."""

    @property
    def is_open(self) -> bool:
        """Whether the channel stands, as far as this machine knows."""
        return self._channel.is_open

    async def send(self, frame: bytes) -> None:
        """Send one; what it promises is written down before."""
        self._store()
        try:
            await self._channel.send(frame)
        except (NetworkUnreachable, TimedOut) as error:
            raise LegFailed(f"the provider cannot be reached: {error}") from error

    async def next(self, timeout_s: float, *kinds: type[Record]) -> Record:
        """The next message of one of the kinds; others are dealt with on the way, and win no time.

        Raises:
            LegFailed: none came in time, or no sign of life did.
        """
        deadline_s = time.perf_counter() + timeout_s
        while True:
            while self._backlog:
                message = self._backlog.pop(0)
                if isinstance(message, Goodbye):
                    raise LegFailed(f"the provider said goodbye: {message.message}")
                if isinstance(message, Pong) and message.nonce == _NONCE and self._pinged_s is not None:
                    self.round_trip_s = time.perf_counter() - self._pinged_s
                if isinstance(message, kinds):
                    return message
            left_s = deadline_s - time.perf_counter()
            if left_s <= 0:
                raise LegFailed(f"the provider did not answer within {timeout_s:g} s")
            try:
                self._backlog += await self._channel.receive(max(1, round(min(BEAT_S, left_s) * 1000)))
                self._silent_since_s = None
            except ChannelTimedOut:
                await self._beat()
            except (ChannelRefused, MalformedBytes, NetworkUnreachable, TimedOut) as error:
                raise LegFailed(f"the provider's channel failed: {error}") from error

    def drop(self, is_unwanted: Callable[[Record], bool]) -> None:
        """Forget messages that came and were not read yet."""
        self._backlog = [message for message in self._backlog if not is_unwanted(message)]

    async def ping(self) -> None:
        """Ask for a sign of life; when it comes, between other answers, `round_trip_s` is known."""
        self._pinged_s = time.perf_counter()
        await self.send(self._leg.ping(_NONCE))

    async def answers(self, timeout_s: float) -> bool:
        """Whether a sign of life comes when it is asked for, while nothing else is."""
        try:
            await self.send(self._leg.ping(_BEAT_NONCE))
            await self.next(timeout_s, Pong)
        except LegFailed:
            return False
        return True

    async def close(self, reason: str) -> None:
        """Say goodbye and hang up."""
        try:
            await self._channel.send(self._leg.goodbye(reason))
        except (ChannelRefused, NetworkUnreachable, TimedOut):
            return  # it hung up first
        finally:
            await self._channel.close()

    async def _beat(self) -> None:
        """Nothing was heard for a while: does the provider live?"""
        now_s = time.perf_counter()
        if self._silent_since_s is None:
            self._silent_since_s = now_s
            await self.send(self._leg.ping(_BEAT_NONCE))
        elif now_s - self._silent_since_s > SILENT_S:
            raise LegFailed(f"the provider gave no sign of life for {now_s - self._silent_since_s:.1f} s")
