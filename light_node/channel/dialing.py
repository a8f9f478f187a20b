"""Reach a provider where its proved record says that it answers: by itself, or at a relay.

    link = await dial(provider.endpoints, timeout_ms=5000)          # a line, and nobody has proved anything on it yet
    made = await first_that_answers(provider.endpoints, handshake, timeout_ms=5000)

Whoever is at the other end of a line is a stranger until a handshake on it has proved the provider's key. A relay in
between is one more stranger: it can keep people apart, and can pretend to be nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from websockets.exceptions import InvalidHandshake, InvalidURI

from dllm_protocol.endpoints import BadEndpoint, RelayEndpoint, direct_first, read_endpoint
from dllm_protocol.errors import ChannelRefused, DllmError
from dllm_protocol.session.handshake import ProviderNotProved
from light_node.bounded_websocket import Dial, DialedConnection
from light_node.channel.errors import ChannelLost, ChannelTimedOut, ChannelUnreachable
from light_node.channel.limits import (
    DEFAULT_LIMITS,
    FRAME_BYTES,
    QUEUED_FRAMES,
    WRITE_BUFFER_BYTES,
    ChannelLimits,
)
from light_node.channel.link import Link
from light_node.relay.connection import STREAM_LIMITS
from light_node.relay.connection import dial as dial_relay
from light_node.relay.errors import NobodyListens, RelayBroke, RelayRefused, RelayTimedOut, RelayUnreachable
from light_node.relay.urls import RelayUrl

T = TypeVar("T")
Handshake = Callable[[Link, float], Awaitable[T]]
"""Proves who is at the other end of a fresh line, until the deadline (by the event loop's clock, in seconds).

ChannelUnreachable and ProviderNotProved out of it lead to the next endpoint; any other error ends the dialling.
"""


async def dial(endpoints: Sequence[str], *, timeout_ms: int, limits: ChannelLimits = DEFAULT_LIMITS) -> Link:
    """A line to the first endpoint that takes the connection; nobody has proved anything on it.

    Args and raises: as `first_that_answers`.
    """

    async def take(link: Link, _deadline: float) -> Link:
        return link

    return await first_that_answers(endpoints, take, timeout_ms=timeout_ms, limits=limits)


async def first_that_answers(
    endpoints: Sequence[str],
    handshake: Handshake[T],
    *,
    timeout_ms: int,
    limits: ChannelLimits = DEFAULT_LIMITS,
) -> T:
    """Make a handshake with the first endpoint that answers as the provider.

    Args:
        endpoints: from the provider's proved record, best first; those without a relay come before all others.
        handshake: is made on each line in turn, until it succeeds.
        timeout_ms: for all endpoints together; each gets an equal share of what is left.

    Raises:
        ChannelUnreachable: no endpoint answered as the provider; says what happened at each.
        DllmError: the handshake's own.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_ms / 1000
    failures: list[str] = []
    for index, endpoint in enumerate(direct_first(tuple(endpoints))):
        until = loop.time() + max(0.0, deadline - loop.time()) / (len(endpoints) - index)
        try:
            link = await _connect(endpoint, until - loop.time(), limits)
            try:
                return await handshake(link, until)
            except (DllmError, asyncio.CancelledError):
                link.abort()
                raise
        except (ChannelUnreachable, ProviderNotProved) as error:
            # Somebody else at this address: the same sealed first message may go to the next one.
            failures.append(f"{_shown(endpoint)}: {error.message}")
    raise ChannelUnreachable(
        "no endpoint of the provider answered: " + ("; ".join(failures) or "it has none"),
        hint="it may be gone, or this machine's network is; try again",
    )


async def first_reply(link: Link, first_message: bytes, deadline: float) -> bytes:
    """Begin a handshake; nobody has proved anything yet, so whatever goes wrong leads to the next endpoint.

    Raises:
        ChannelUnreachable: no reply, or none that could be one.
    """
    try:
        await link.send(first_message)
        left_s = deadline - asyncio.get_running_loop().time()
        return await link.receive(max(1, int(left_s * 1000)))
    except (ChannelLost, ChannelTimedOut, ChannelRefused) as error:
        raise ChannelUnreachable(error.message) from error


async def _connect(endpoint: str, limit_s: float, limits: ChannelLimits) -> Link:
    try:
        found = read_endpoint(endpoint)
    except BadEndpoint as error:
        raise ChannelUnreachable(error.message) from error
    if isinstance(found, RelayEndpoint):
        return await _at_relay(found, endpoint, limit_s, limits)
    return await _direct(found.url, limit_s, limits)


async def _at_relay(found: RelayEndpoint, name: str, limit_s: float, limits: ChannelLimits) -> Link:
    patient = replace(limits, write_ms=max(limits.write_ms, STREAM_LIMITS.write_ms))
    try:
        stream = await dial_relay(
            RelayUrl(found.url, found.relay),
            found.address,
            timeout_ms=max(1, int(limit_s * 1000)),
            limits=patient,
        )
    except (NobodyListens, RelayUnreachable, RelayRefused, RelayTimedOut, RelayBroke) as error:
        raise ChannelUnreachable(error.message) from error
    stream.name = name
    return stream


async def _direct(url: str, limit_s: float, limits: ChannelLimits) -> Link:
    ping_s = limits.ping_ms / 1000
    try:
        socket = await Dial(
            url,
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
    return Link(socket, limits, url)


def _shown(endpoint: str) -> str:
    """An endpoint is a stranger's text: nothing in it may move a cursor."""
    return endpoint if endpoint.isascii() and endpoint.isprintable() else ascii(endpoint)
