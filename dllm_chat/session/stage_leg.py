"""One stage's leg in a line: what was asked of it, what it has done, and when it was last heard."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dllm_chat.session.events import StageLinkShown
from dllm_chat.session.front_desk import LegFailed
from dllm_protocol.encoding import Record
from dllm_protocol.errors import ChannelRefused, DllmError, MalformedBytes, NetworkUnreachable, TimedOut
from dllm_protocol.messages import FORM_BF16, FORM_F32, Done, Ready, Refused
from dllm_protocol.session.client import ClientLeg
from light_node.channel.client import Channel

IDLE_MS = 24 * 3600 * 1000
"""A leg that is not asked anything may be silent; heartbeats say whether it lives."""


FORM_NAMES: Final = {FORM_F32: "f32", FORM_BF16: "bf16"}


class StageFailed(LegFailed):
    """One stage of a line is of no more use."""

    code = "E_STAGE"

    def __init__(
        self, provider: bytes, message: str, *, hint: str = "", accuser: bytes = b"", behind: bytes = b""
    ) -> None:
        super().__init__(message, hint=hint)
        self.provider = provider
        self.accuser = accuser
        """Who says so; empty: this machine saw it."""
        self.behind = behind
        """The stage before, where the failed one did nothing with rows that this one says it handed on."""


class StageSlow(StageFailed):
    """A stage that lives holds the others up; the rest of the answer may be faster without it."""

    code = "E_STAGE_SLOW"


@dataclass(slots=True)
class _Asked:
    """Rows that were asked for and not answered."""

    end: int
    """Rows that are held when it is done."""
    is_quiet: bool = False
    """Whether the stage does not say when it is done."""
    counts: bool = True
    """Whether nothing was cut off behind its back since."""


class StageLeg:
    """A sealed channel to one stage, read all the time by a task of its own."""

    def __init__(self, channel: Channel, leg: ClientLeg, layers: int, clock_s: Callable[[], float]) -> None:
        """Prepare.

        Args:
            layers: how many the stage has.
            clock_s: monotonic seconds.
        """
        self.layers = layers
        self.leg = leg
        self.rows = 0
        """Rows that it holds for sure."""
        self.form = 0
        """How its hidden states go to the next stage, a FORM_ constant; 0: not said, or it is the last."""
        self.link_round_trip_s = 0.0
        """Measured by it on the link to the next stage."""
        self.silent_since_s: float | None = None
        """When it was first pinged without having said anything since; None: it owes no sign of life."""
        self.failure: DllmError | None = None
        """What ended the channel."""
        self._channel = channel
        self._clock_s = clock_s
        self._asked: dict[int, _Asked] = {}
        self._posted: deque[bytes] = deque()
        self._posting: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def provider(self) -> bytes:
        """Provider id."""
        return self.leg.provider

    @property
    def ready(self) -> Ready:
        """What the provider said it has and takes."""
        return self._channel.ready

    @property
    def alive(self) -> bool:
        """Whether the channel stands, as far as this machine knows."""
        return self.failure is None

    @property
    def link_shown(self) -> StageLinkShown:
        """How hidden states go to the next stage."""
        return StageLinkShown(FORM_NAMES.get(self.form, "?"), round(1e6 * self.link_round_trip_s))

    @property
    def unanswered(self) -> list[int]:
        """Requests for rows that were not answered, the newest first."""
        return sorted(self._asked, reverse=True)

    def has_answered(self, request: int) -> bool:
        """Whether nothing more comes for a request for rows."""
        return request not in self._asked

    def read(self, take: Callable[[StageLeg, Record], None], changed: Callable[[], None]) -> None:
        """Begin to read, or go on for somebody else.

        Args:
            take: gets every message.
            changed: called after each frame, and when the channel has ended.
        """
        self._take, self._changed = take, changed
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while True:
                for message in await self._channel.receive(IDLE_MS):
                    self._note(message)
                    self._take(self, message)
                self.silent_since_s = None
                self._changed()
        except (ChannelRefused, MalformedBytes, NetworkUnreachable, TimedOut) as error:
            self.failure = error
            self._changed()

    def _note(self, message: Record) -> None:
        if isinstance(message, Done | Refused):
            asked = self._asked.pop(message.request, None)
            if asked is not None and asked.counts and isinstance(message, Done):
                self.rows = asked.end

    def assume_done(self, newest: int) -> None:
        """Quiet requests up to this one were carried out: the stage says so, or one behind it has done them."""
        for request, asked in list(self._asked.items()):
            if asked.is_quiet and request <= newest:
                self.leg.assume_done(request)
                self._note(Done(request))

    def asked(self, request: int, first_position: int, rows: int, *, is_quiet: bool = False) -> None:
        """Rows are about to be asked for: what stands behind them is cut off."""
        for earlier in self._asked.values():
            earlier.counts = earlier.counts and earlier.end <= first_position
        self.rows = min(self.rows, first_position)
        self._asked[request] = _Asked(first_position + rows, is_quiet)

    def post(self, frame: bytes) -> None:
        """Have a frame that the leg sealed sent soon: when others have sent what is more urgent.

        What goes wrong then is the channel's `failure`.
        """
        self._posted.append(frame)
        if len(self._posted) == 1:
            asyncio.get_running_loop().call_soon(self._send_posted)

    def _send_at_once(self) -> None:
        while self._posted and self._channel.send_at_once(self._posted[0]):
            self._posted.popleft()

    def _send_posted(self) -> None:
        self._send_at_once()
        if self._posted and self._posting is None:
            self._posting = asyncio.create_task(self._send_rest())

    async def _send_rest(self) -> None:
        """The other side is slow, or gone."""
        try:
            while self._posted:
                await self._channel.send(self._posted.popleft())
        except (NetworkUnreachable, TimedOut) as error:
            self._posted.clear()
            self.failure = self.failure or error
            self._changed()
        finally:
            self._posting = None

    async def send(self, frame: bytes) -> None:
        """Send a frame that the leg sealed, behind those that were posted.

        Raises:
            StageFailed
        """
        self._posted.append(frame)
        try:
            while self._posted:
                await self._channel.send(self._posted.popleft())
        except (NetworkUnreachable, TimedOut) as error:
            self._posted.clear()
            raise StageFailed(self.provider, f"the provider cannot be reached: {error}") from error

    async def ping(self) -> None:
        """Ask for a sign of life."""
        if self.silent_since_s is None:
            self.silent_since_s = self._clock_s()
        await self.send(self.leg.ping(1))

    async def answers(self, timeout_s: float) -> bool:
        """Whether a sign of life comes when it is asked for, while nobody else reads."""
        heard = asyncio.Event()
        self.read(lambda _, __: None, heard.set)
        try:
            async with asyncio.timeout(timeout_s):
                await self.ping()
                while self.alive and self.silent_since_s is not None:
                    heard.clear()
                    await heard.wait()
        except (StageFailed, TimeoutError):
            return False
        return self.alive

    async def close(self, reason: str) -> None:
        """Say goodbye and hang up."""
        for task in (self._reader, self._posting):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self.leg.forget_unanswered()
        self._send_at_once()
        self._posted.clear()
        try:
            await self._channel.send(self.leg.goodbye(reason))
        except (ChannelRefused, NetworkUnreachable, TimedOut):
            return  # it hung up first
        finally:
            await self._channel.close()
