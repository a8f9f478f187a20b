"""The lanes of one session's place: in from the stage before, out to the one behind.

At the last stage the way out is to the first one, which hears what the likeliest token is; at the first the way in is
from the last. A lane is made when the first single row is asked for, and not once more in the same line: whatever goes
over lanes can go over links.
"""

from __future__ import annotations

from collections.abc import Callable

from dllm_protocol.errors import ChannelRefused
from dllm_protocol.messages import FORM_F32
from dllm_protocol.stage_link import StageLink, StageReady
from light_node.channel.dialing import first_that_answers
from light_node.channel.limits import ChannelLimits
from light_node.channel.link import Link
from local_worker.engine.interface import ServingEngine
from local_worker.engine.lane import Lane
from local_worker.engine.messages import Ticket
from local_worker.next_stage import DIAL_MS, StageDialing, claim_stage


class PlaceLanes:
    """At most one lane in and one out."""

    def __init__(self, engine: Callable[[], ServingEngine], lost: Callable[[], None]) -> None:
        """Prepare.

        Args:
            engine: who goes on with them.
            lost: called when the lane out has ended by itself: what went over it last may not have arrived.
        """
        self._engine = engine
        self._lost = lost
        self.on_rise: Callable[[], None] = _nothing
        """Called when the lane in stands from now on."""
        self._into: Lane | None = None
        self._out: Lane | None = None

    def ticket(self, request: int, *, is_first: bool) -> Ticket | None:
        """How a row goes over lanes now; None where it does not."""
        into, out = (lane.number if lane and lane.is_up else 0 for lane in (self._into, self._out))
        return Ticket(request, into, out) if (out if is_first else into) else None

    @property
    def has_out(self) -> bool:
        """Whether there is a lane out that has not ended."""
        return self._out is not None and not self._out.reason

    @property
    def fault(self) -> str:
        """What the stage before sent that no honest one sends; empty where it did not."""
        return self._into.reason if self._into is not None and self._into.is_fault else ""

    def stands_in(self, number: int) -> bool:
        """Whether this is the lane in, and something may come over it."""
        return self._into is not None and self._into.number == number and not self._into.reason

    async def dial(
        self, to: StageDialing, form: int, limits: ChannelLimits, is_wanted: Callable[[], bool]
    ) -> None:
        """Make a lane out.

        Args:
            is_wanted: whether that is still where the way out leads, once it has answered.

        Raises:
            DllmError: why there is none.
        """

        async def claim(link: Link, deadline_s: float) -> None:
            stage = await claim_stage(link, to, deadline_s, lane=True)
            if self.has_out or not is_wanted():
                link.abort()
                return
            self._out = self._handed_over(link, stage, form, is_dialler=True)
            if self._out is None:
                link.abort()
            else:
                self._out.on_fall = self._lost

        # A relay's stream is the relay's, and TLS needs more than a socket.
        endpoints = [one for one in to.record.endpoints if one.startswith("ws://")]
        if endpoints:
            await first_that_answers(endpoints, claim, timeout_ms=DIAL_MS, limits=limits)

    async def take(self, link: Link, stage: StageLink, width: int) -> None:
        """Take a lane in, from a stage that proved itself.

        Raises:
            ChannelRefused: this connection, or this engine, makes none.
        """
        self.close_into()
        link.hold()  # what comes behind the answer is not this process's
        await link.send(stage.seal(StageReady(width)))
        self._into = self._handed_over(link, stage, FORM_F32, is_dialler=False)
        if self._into is None:
            raise ChannelRefused("no lane can be made here")
        self._into.on_rise = self._rose

    def _rose(self) -> None:
        self.on_rise()

    def _handed_over(self, link: Link, stage: StageLink, form: int, *, is_dialler: bool) -> Lane | None:
        engine = self._engine()
        connection = link.detach()
        if connection is None:
            return None
        return engine.take_lane(connection, stage.hand_over(), form=form, is_dialler=is_dialler)

    def close_into(self) -> None:
        """Another provider stands before this stage, or none."""
        if self._into is not None:
            self._into.close()
        self._into = None

    def close_out(self) -> None:
        """Another provider stands behind this stage, or none."""
        if self._out is not None:
            self._out.close()
        self._out = None

    def close(self) -> None:
        """Give both up."""
        self.close_into()
        self.close_out()


def _nothing() -> None:
    """What happens on a lane that nobody waits for."""
