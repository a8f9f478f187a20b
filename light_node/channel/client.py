"""Open a sealed channel to a provider.

    channel = await open_channel(provider.endpoints, leg, timeout_ms=5000)
    request, frame = leg.decode(…)
    await channel.send(frame)
    for message in await channel.receive(): …

The prompt goes out only after `open_channel` returned: then the provider has proved its key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dllm_protocol.encoding import Record
from dllm_protocol.errors import ChannelRefused
from dllm_protocol.messages import Goodbye, Ready
from dllm_protocol.session.client import ClientLeg
from light_node.channel.dialing import first_reply, first_that_answers
from light_node.channel.errors import SaidGoodbye
from light_node.channel.limits import DEFAULT_LIMITS, ChannelLimits
from light_node.channel.link import Link


class Channel:
    """A sealed channel that stands: the provider proved its key and took the claim."""

    def __init__(self, link: Link, leg: ClientLeg, ready: Ready) -> None:
        self.leg = leg
        self.ready = ready
        self._link = link

    @property
    def endpoint(self) -> str:
        """Where the provider answered."""
        return self._link.name

    @property
    def is_open(self) -> bool:
        """Whether it stands, as far as this machine knows."""
        return self._link.is_open

    async def send(self, frame: bytes) -> None:
        """Send a frame that the leg sealed. Frames go out in the order in which the leg sealed them.

        Raises:
            ChannelLost, ChannelTimedOut
        """
        await self._link.send(frame)

    def send_at_once(self, frame: bytes) -> bool:
        """The same if it makes nobody wait: whether it went."""
        return self._link.send_at_once(frame)

    async def receive(self, timeout_ms: int | None = None) -> tuple[Record, ...]:
        """The messages of the next frame, each checked by the leg.

        Args:
            timeout_ms: how long to wait; the limits' idle time where None.

        Raises:
            ChannelLost: the connection ended.
            ChannelTimedOut: nothing came; the channel stands.
            ChannelRefused, MalformedBytes: the provider broke the protocol; close the channel.
        """
        return self.leg.receive(await self._link.receive(timeout_ms))

    async def close(self, reason: str = "") -> None:
        """Close; a second time does nothing."""
        await self._link.close(reason)


async def open_channel(
    endpoints: Sequence[str], leg: ClientLeg, *, timeout_ms: int, limits: ChannelLimits = DEFAULT_LIMITS
) -> Channel:
    """Connect to the first endpoint that answers as the provider, and claim the session there.

    Args:
        endpoints: from the provider's proved record, best first; those without a relay come before all others.
        leg: fresh; it is used up when the provider has answered.
        timeout_ms: for all endpoints together; each gets an equal share of what is left.

    Raises:
        ChannelUnreachable: no endpoint answered as the provider; says what happened at each.
        SaidGoodbye: the provider will not serve this session, and says why.
        ChannelRefused, MalformedBytes: the provider broke the protocol.
        ChannelTimedOut, ChannelLost: it answered and then fell silent.
    """
    return await first_that_answers(
        endpoints,
        lambda link, deadline: claim_channel(link, leg, deadline),
        timeout_ms=timeout_ms,
        limits=limits,
    )


async def claim_channel(link: Link, leg: ClientLeg, deadline: float) -> Channel:
    """Claim the session at the other end of a connection, whatever way it was made.

    Args:
        deadline: by the event loop's clock, in seconds.

    Raises:
        as `open_channel`
    """

    def left_ms() -> int:
        return max(1, int((deadline - asyncio.get_running_loop().time()) * 1000))

    await link.send(leg.take_hello(await first_reply(link, leg.first_message, deadline)))
    for message in leg.receive(await link.receive(left_ms())):
        if isinstance(message, Goodbye):
            raise SaidGoodbye(f"the provider will not serve: {message.message}")
    if leg.ready is None:
        raise ChannelRefused("the provider answered the claim without Ready")
    return Channel(link, leg, leg.ready)
