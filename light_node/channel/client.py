"""Open a sealed channel to a provider.

    channel = await open_channel(provider.endpoints, leg, timeout_ms=5000)
    request, frame = leg.decode(…)
    await channel.send(frame)
    for message in await channel.receive(): …

The prompt goes out only after `open_channel` returned: then the provider has proved its key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidURI

from dllm_protocol.encoding import Record
from dllm_protocol.errors import ChannelRefused, DllmError
from dllm_protocol.messages import Goodbye, Ready
from dllm_protocol.session.client import ClientLeg
from dllm_protocol.session.handshake import ProviderNotProved
from light_node.bounded_websocket import DialedConnection
from light_node.channel.errors import ChannelLost, ChannelTimedOut, ChannelUnreachable, SaidGoodbye
from light_node.channel.limits import (
    DEFAULT_LIMITS,
    FRAME_BYTES,
    QUEUED_FRAMES,
    WRITE_BUFFER_BYTES,
    ChannelLimits,
)
from light_node.channel.link import Link

SCHEMES = ("ws://", "wss://")


class Dial(connect):
    """A connection that goes where the proved record says, and nowhere else."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow nobody."""
        return exc


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

    async def send(self, frame: bytes) -> None:
        """Send a frame that the leg sealed. Frames go out in the order in which the leg sealed them.

        Raises:
            ChannelLost, ChannelTimedOut
        """
        await self._link.send(frame)

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
        endpoints: from the provider's proved record, best first; ``ws://`` and ``wss://`` are tried.
        leg: fresh; it is used up when the provider has answered.
        timeout_ms: for all endpoints together; each gets an equal share of what is left.

    Raises:
        ChannelUnreachable: no endpoint answered as the provider; says what happened at each.
        SaidGoodbye: the provider will not serve this session, and says why.
        ChannelRefused, MalformedBytes: the provider broke the protocol.
        ChannelTimedOut, ChannelLost: it answered and then fell silent.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_ms / 1000
    failures: list[str] = []
    for index, endpoint in enumerate(endpoints):
        share_s = max(0.0, deadline - loop.time()) / (len(endpoints) - index)
        if not endpoint.startswith(SCHEMES):
            failures.append(f"{endpoint}: neither ws:// nor wss://")
            continue
        try:
            return await _open(endpoint, leg, share_s, limits)
        except (ChannelUnreachable, ProviderNotProved) as error:
            # Somebody else at this address: the same sealed first message may go to the next one.
            failures.append(f"{endpoint}: {error.message}")
    raise ChannelUnreachable(
        "no endpoint of the provider answered: " + ("; ".join(failures) or "it has none"),
        hint="another provider will be used where the route has one",
    )


async def dial_link(
    endpoints: Sequence[str], *, timeout_ms: int, limits: ChannelLimits = DEFAULT_LIMITS
) -> AsyncIterator[Link]:
    """Links to a provider's endpoints, one after the other, for whoever makes a handshake of its own on them.

    A link is aborted when the next one is asked for, and belongs to the caller when it stops asking.

    Args:
        endpoints: from the provider's proved record, best first; ``ws://`` and ``wss://`` are tried.
        timeout_ms: for all endpoints together; each gets an equal share of what is left.

    Raises:
        ChannelUnreachable: no endpoint is left; says what happened at each.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_ms / 1000
    failures: list[str] = []
    for index, endpoint in enumerate(endpoints):
        share_s = max(0.0, deadline - loop.time()) / (len(endpoints) - index)
        if not endpoint.startswith(SCHEMES):
            failures.append(f"{endpoint}: neither ws:// nor wss://")
            continue
        try:
            link = Link(await _connect(endpoint, share_s, limits), limits, endpoint)
        except ChannelUnreachable as error:
            failures.append(f"{endpoint}: {error.message}")
            continue
        yield link
        link.abort()
        failures.append(f"{endpoint}: it answered as somebody else")
    raise ChannelUnreachable(
        "no endpoint of the provider answered: " + ("; ".join(failures) or "it has none")
    )


async def _open(endpoint: str, leg: ClientLeg, limit_s: float, limits: ChannelLimits) -> Channel:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_s
    socket = await _connect(endpoint, limit_s, limits)
    link = Link(socket, limits, endpoint)
    try:
        return await claim_channel(link, leg, deadline)
    except (DllmError, asyncio.CancelledError):
        link.abort()
        raise


async def _connect(endpoint: str, limit_s: float, limits: ChannelLimits) -> ClientConnection:
    ping_s = limits.ping_ms / 1000
    try:
        return await Dial(
            endpoint,
            compression=None,  # sealed bytes do not compress
            proxy=None,
            user_agent_header=None,
            open_timeout=limit_s,
            ping_interval=ping_s,
            ping_timeout=ping_s,
            close_timeout=limits.close_ms / 1000,
            max_size=FRAME_BYTES,
            max_queue=QUEUED_FRAMES,
            write_limit=WRITE_BUFFER_BYTES,
            create_connection=DialedConnection,
        )
    except TimeoutError as error:
        raise ChannelUnreachable(f"no answer within {limit_s * 1000:.0f} ms") from error
    except (OSError, InvalidHandshake, InvalidURI, ValueError) as error:
        raise ChannelUnreachable(str(error)[:200] or type(error).__name__) from error


async def claim_channel(link: Link, leg: ClientLeg, deadline: float) -> Channel:
    """Claim the session at the other end of a connection, whatever way it was made.

    Args:
        deadline: by the event loop's clock, in seconds.

    Raises:
        as `open_channel`
    """

    def left_ms() -> int:
        return max(1, int((deadline - asyncio.get_running_loop().time()) * 1000))

    try:
        await link.send(leg.first_message)
        answer = await link.receive(left_ms())
    except (ChannelLost, ChannelTimedOut) as error:
        # Nothing was claimed yet, so another address of the provider may still be the right one.
        raise ChannelUnreachable(error.message) from error
    await link.send(leg.take_hello(answer))
    for message in leg.receive(await link.receive(left_ms())):
        if isinstance(message, Goodbye):
            raise SaidGoodbye(f"the provider will not serve: {message.message}")
    if leg.ready is None:
        raise ChannelRefused("the provider answered the claim without Ready")
    return Channel(link, leg, leg.ready)
