"""A worker's places at relays: it listens there over outbound connections, and serves who dials as at its own door.

Losing a relay ends nothing: the listener comes back with growing pauses, and the status says how it stands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from dllm_protocol.endpoints import write_relay_endpoint
from dllm_protocol.errors import DllmError
from dllm_protocol.relay import key_address
from dllm_protocol.signing import Signer
from light_node.channel.limits import ChannelLimits
from light_node.channel.link import POLICY_VIOLATION, Link
from light_node.relay.connection import STREAM_LIMITS, RelayStream
from light_node.relay.errors import RelayReplaced
from light_node.relay.listening import ByKey, RelayListener
from light_node.relay.urls import RelayUrl

RELAYS_MAX = 4
"""Each is tried by a client that does not reach the one before; they share its patience."""
STREAMS_PER_RELAY = 64
"""Streams at once through one relay: as many as a relay gives one listener, and twice what it allows one remote."""
BROKEN_PAUSE_S = 300.0
"""Before a relay is tried again that is none, or none of this version."""
OPEN = "open"
"""The state of an endpoint at which clients are taken."""
CONNECTING = "connecting"
"""Its state until a relay was first reached or not."""
_log = logging.getLogger(__name__)

OnConnection = Callable[[Link], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Place:
    endpoint: str
    listener: RelayListener


class RelayPlaces:
    """Listens at every relay that a worker was told."""

    def __init__(
        self, relays: Sequence[RelayUrl], signer: Signer, on_connection: OnConnection, limits: ChannelLimits
    ) -> None:
        """Prepare; nothing is connected before `run`.

        Args:
            signer: whose address it is; clients find it in the endpoint.
            on_connection: serves one connection to its end, see `light_node.channel.server.OnConnection`.

        Raises:
            BadEndpoint: a relay's address is too long for a provider's record, or has a path that none may have.
        """
        self._on_connection = on_connection
        self._first_bytes = limits.hello_bytes
        address = key_address(signer.public_key)
        # A relay keeps what the other side does not take yet, so sending may wait longer than on a direct line.
        patient = replace(limits, write_ms=max(limits.write_ms, STREAM_LIMITS.write_ms))
        self._places = tuple(
            _Place(
                write_relay_endpoint(relay.url, relay.name, address),
                RelayListener(
                    relay,
                    ByKey(signer),
                    self._serve,
                    streams_max=STREAMS_PER_RELAY,
                    on_news=_log.warning,
                    limits=patient,
                    message_bytes=self._first_bytes,
                ),
            )
            for relay in relays
        )

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where it is reachable at relays, in the order in which they were told."""
        return tuple(place.endpoint for place in self._places)

    @property
    def is_open(self) -> bool:
        """Whether any relay rings us now."""
        return any(place.listener.is_listening for place in self._places)

    @property
    def states(self) -> dict[str, str]:
        """By endpoint: `OPEN`, or why it is not."""
        return {
            place.endpoint: OPEN if place.listener.is_listening else place.listener.problem or CONNECTING
            for place in self._places
        }

    async def run(self) -> None:
        """Listen at all of them, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for place in self._places:
                group.create_task(_hold(place))

    async def wait_for_one(self) -> None:
        """Return when at least one relay took us, however long that takes; at once where there are none."""
        while self._places and not self.is_open:  # noqa: ASYNC110
            # Each listener comes and goes by itself; the first that stands is enough.
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Listen no more, and end what is left of the streams."""
        await asyncio.gather(*(place.listener.close() for place in self._places))

    async def _serve(self, stream: RelayStream) -> None:
        try:
            await self._on_connection(stream)
        except DllmError as error:
            _log.debug("closed a stream at %s: %s", stream.name, error.message)
            # In order, so that a goodbye which was sent before still arrives.
            await stream.close(error.message, POLICY_VIOLATION)


def own_endpoints(host: str, port: int, *, has_relays: bool) -> tuple[str, ...]:
    """What a worker announces of the address that it listens on, where nobody said what to announce.

    Beside a relay only what strangers can dial: an endpoint that leads nowhere costs a client a share of its patience.
    """
    if has_relays and not _is_public(host):
        return ()
    return (f"ws://{f'[{host}]' if ':' in host else host}:{port}",)


def unreachable(states: Mapping[str, str]) -> str:
    """Why no endpoint is open; empty where one is."""
    closed = [state for state in states.values() if state not in (OPEN, CONNECTING)]
    return (
        f"nobody can reach this worker: {'; '.join(closed)}" if closed and len(closed) == len(states) else ""
    )


def _is_public(host: str) -> bool:
    try:
        return ip_address(host).is_global
    except ValueError:
        return host != "localhost"


async def _hold(place: _Place) -> None:
    while True:
        try:
            await place.listener.run()
        except RelayReplaced as error:
            _log.error("%s; not trying again", error.message)
            # Whoever holds the key elsewhere would be thrown out in turn.
            await asyncio.Event().wait()
        except DllmError as error:
            _log.error("%s; trying again in %g s", error.message, BROKEN_PAUSE_S)
        await asyncio.sleep(BROKEN_PAUSE_S)
