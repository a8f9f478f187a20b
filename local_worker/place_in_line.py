"""A session's place in a line of stages: who is linked before and behind, as the client says.

The client may change the line at any time: a provider failed and another takes its stage. Then the links that stay are
kept, and only what changed is dialled anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from dllm_protocol.errors import ChannelRefused, DllmError
from dllm_protocol.messages import FORM_F32
from dllm_protocol.session.acceptance import Terms
from dllm_protocol.session.orders import StandBetween
from dllm_protocol.signing import Signer
from dllm_protocol.stage_link import StageGoodbye, StageLink, StageReady
from light_node.channel.limits import ChannelLimits
from light_node.channel.link import Link
from local_worker.chain import Chain
from local_worker.engine.interface import ServingEngine
from local_worker.engine.messages import Hidden
from local_worker.errors import NextStageFailed
from local_worker.handed_log import HandedLogs
from local_worker.hidden_form import pack
from local_worker.next_stage import NextStage, StageDialing
from local_worker.place_lanes import PlaceLanes
from local_worker.previous_stage import PreviousStage
from local_worker.row_room import RowRoom

_log = logging.getLogger(__name__)

LINK_WAIT_S: Final = 12.0
"""Longest that rows wait for a link that is being made."""


@dataclass(frozen=True, slots=True)
class LineTools:
    """What links are made with, the same for all sessions of a provider."""

    chain: Chain
    service_key: Signer
    limits: ChannelLimits
    logs: HandedLogs
    room: RowRoom


class PlaceInLine:
    """Who stands before and behind, in one session."""

    def __init__(
        self,
        terms: Terms,
        tools: LineTools,
        width: Callable[[], int],
        tell: Callable[[StandBetween, NextStage | None], Awaitable[None]],
        lost: Callable[[int, str], Awaitable[None]],
        engine: Callable[[], ServingEngine],
    ) -> None:
        """Prepare.

        Args:
            width: numbers of a hidden state.
            engine: computes the rows.
            tell: called when the place stands, with the link to the next stage.
            lost: called with the line's generation when the next stage is not reached, or not any more; and why.
        """
        self.previous = PreviousStage(tools.room)
        self.lanes = PlaceLanes(engine, self._lane_lost)
        self._terms = terms
        self._tools = tools
        self._width = width
        self._tell = tell
        self._lost = lost
        self._order = StandBetween(0, b"", b"", 0)
        self._next: NextStage | None = None
        self._failure = ""
        self._ordered = asyncio.Event()
        self._linked = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._linking: asyncio.Task[None] | None = None
        self._newest = (0, 0)
        """Request and position of the row that the engine handed on last."""
        self._dialling: asyncio.Task[None] | None = None
        """Makes a lane."""
        self._lane_of = 0
        """The line that a lane was last dialled for."""
        self._closed = False

    def stand(self, order: StandBetween) -> None:
        """Take a new place; links are made in the background."""
        if order.previous != self._order.previous:
            self.previous.hang_up()
        if _lane_source(order) != _lane_source(self._order) or self.lanes.fault:
            self.lanes.close_into()
        if _lane_target(order) != _lane_target(self._order):
            self.lanes.close_out()
            if self._dialling is not None:
                self._dialling.cancel()
        self._order = order
        self._ordered.set()
        self._linked.clear()
        self._failure = ""
        if self._linking is not None:
            self._linking.cancel()
        self._linking = self._spawn(partial(self._link, order))

    async def take(self, provider: bytes, link: Link, stage: StageLink) -> None:
        """Serve the link of the stage before, until it ends.

        Raises:
            ChannelRefused: the client has not named this provider.
            DllmError: the link ended thus.
        """
        await self._until_named(provider, link, stage)
        await link.send(stage.seal(StageReady(self._width())))
        if self._closed:
            raise ChannelRefused("the session ended while a link to it was made")
        await self.previous.read(link, stage)

    async def take_lane(self, provider: bytes, link: Link, stage: StageLink) -> None:
        """Take a lane of the stage before; at the first stage, of the last one.

        Raises:
            ChannelRefused: the client has not named this provider, or no lane can be made.
        """
        await self._until_named(provider, link, stage)
        await self.lanes.take(link, stage, self._width())
        if self._closed:
            self.lanes.close()
            raise ChannelRefused("the session ended while a lane to it was made")

    async def _until_named(self, provider: bytes, link: Link, stage: StageLink) -> None:
        """Wait until the client says that a provider stands before this stage."""
        try:
            async with asyncio.timeout(LINK_WAIT_S):
                while provider != _lane_source(self._order) and not self._closed:
                    self._ordered.clear()
                    await self._ordered.wait()
            if self._closed:  # nobody would ever hang up on it
                raise TimeoutError
        except TimeoutError as error:
            await link.send(stage.seal(StageGoodbye("the client has not put you before this stage")))
            raise ChannelRefused(
                "a provider dialled whom the client has not put before this stage"
            ) from error

    def want_lane(self) -> None:
        """Single rows are asked for: have a lane out made in the background, once a line."""
        order = self._order
        to = _lane_target(order)
        if self._lane_of == order.generation or not to:
            return
        self._lane_of = order.generation
        if not self.lanes.has_out and (self._dialling is None or self._dialling.done()):
            self._dialling = self._spawn(partial(self._dial_lane, order, to))

    async def _dial_lane(self, order: StandBetween, to: bytes) -> None:
        form = self._next.form if self._next else FORM_F32
        await self.lanes.dial(
            await self._dialing(order, to),
            form,
            self._tools.limits,
            lambda: _lane_target(self._order) == to and not self._closed,
        )

    def _lane_lost(self) -> None:
        """What went over the lane last may not have arrived. Over the link it does, or is known to have come before."""
        request, first_position = self._newest
        if not self._closed and request:
            self._spawn(partial(self._send_again, request, first_position))

    async def _send_again(self, request: int, first_position: int) -> None:
        await self.resend(request, first_position, 1)

    async def hand_on(
        self, request: int, first_position: int, rows: Hidden, *, sends: bool, over_lane: bool = False
    ) -> None:
        """Keep rows, and send them to the next stage.

        Args:
            sends: else they are kept only.
            over_lane: whether they went already, over a lane.

        Raises:
            NextStageFailed
        """
        if over_lane:
            self._newest = (request, first_position)
        if not sends:
            form = self._next.form if self._next else self._order.form or FORM_F32
            self._note(first_position, rows, form, pack(rows, form))
            return
        behind = await self._reached()
        data = pack(rows, behind.form)
        try:
            await behind.send(request, first_position, len(rows), behind.form, data)
        finally:
            # Afterwards, for the next stage waits; and whether it took them or not, for another one may have to.
            self._note(first_position, rows, behind.form, data)

    def _note(self, first_position: int, rows: Hidden, form: int, data: bytes) -> None:
        self._tools.logs.note(self._terms.session, first_position, len(rows), form, data)

    async def resend(self, request: int, first_position: int, rows: int) -> bool:
        """Send rows that went before once more; False where they are not kept any more.

        Raises:
            NextStageFailed
        """
        kept = self._tools.logs.kept(self._terms.session, first_position, rows)
        if kept is None:
            return False
        behind = await self._reached()
        for part in kept:
            await behind.send(request, part.first_position, part.rows, part.form, part.data)
        return True

    async def wait_reached(self) -> None:
        """Return when there is a link to the next stage.

        Raises:
            NextStageFailed
        """
        await self._reached()

    async def _reached(self) -> NextStage:
        behind = self._next
        if self._linked.is_set() and behind is not None and behind.alive:
            return behind
        try:
            async with asyncio.timeout(LINK_WAIT_S):
                await self._linked.wait()
        except TimeoutError as error:
            raise NextStageFailed("no link to a next stage was asked for or made") from error
        if self._next is None:
            raise NextStageFailed(self._failure or "there is no next stage")
        return self._next

    async def close(self) -> None:
        """Hang up on both sides."""
        self._closed = True
        self._ordered.set()
        self.lanes.close()
        self.previous.hang_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._next is not None:
            await self._next.close()

    async def _link(self, order: StandBetween) -> None:
        standing = self._next
        if standing is not None and (standing.provider != order.next or not standing.alive):
            self._next = None
            await standing.close()
        try:
            if order.next and self._next is None:
                self._next = await NextStage.dial(await self._dialing(order, order.next), self._tools.limits)
                self._spawn(partial(self._watch, self._next))
        except DllmError as error:
            self._failure = error.message
            self._linked.set()
            _log.info("session %s: %s", self._terms.session.hex()[:16], error.message)
            self._spawn(partial(self._lost, order.generation, error.message))
            return
        self._linked.set()
        # By a task of its own: this one ends when the line changes, and what is sealed must go out.
        self._spawn(partial(self._tell, order, self._next))

    async def _dialing(self, order: StandBetween, to: bytes) -> StageDialing:
        record = await self._tools.chain.provider(to)
        if record is None:
            raise NextStageFailed(f"the next stage {to.hex()} is not registered any more")
        return StageDialing(
            chain_id=self._terms.chain_id,
            session=self._terms.session,
            own_provider=self._terms.entry.provider,
            service_key=self._tools.service_key,
            provider=to,
            record=record,
            width=self._width(),
            form=order.form,
            ephemeral_seed=lambda: os.urandom(32),
        )

    async def _watch(self, link: NextStage) -> None:
        reason = await link.wait_ended()
        if self._next is link:
            self._next, self._failure = None, f"the next stage hung up: {reason}"
            await self._lost(self._order.generation, self._failure)

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(_expecting(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _lane_source(order: StandBetween) -> bytes:
    """Who comes before this stage: the stage before, and before the first one the last."""
    return order.previous or order.ring


def _lane_target(order: StandBetween) -> bytes:
    """Whom a lane out leads to: the next stage, and from the last one the first."""
    return order.next or (order.ring if order.previous else b"")


async def _expecting(work: Callable[[], Awaitable[None]]) -> None:
    """Whom there is nobody left to tell to is no defect."""
    try:
        await work()
    except DllmError as error:
        _log.info("a change of the line was not told: %s", error.message)
