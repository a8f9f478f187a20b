"""Every bound of a relay, in one place."""

from __future__ import annotations

import dataclasses
from typing import Self

from dllm_protocol.errors import UsageRefused

HANDSHAKE_MS = 10_000
QUEUED_MESSAGES = 1
"""Messages that wait unread, each way, before the socket is no longer read."""
WRITE_BUFFER_BYTES = 256 * 1024
"""Bytes that wait unsent, each way, before the other side is no longer read."""
READ_BYTES = 16 * 1024
"""Bytes that are read of a connection at once: they hold some 2,700 messages at worst, each of which takes its time."""
MESSAGES_A_TURN = 16
"""Messages of one connection that are dealt with before the others have their turn."""
UNTAKEN_PONGS_MAX = 64
"""Pings of a side that does not take what was sent; an honest one has sent a few in the time that it has."""
PACE_BYTES_PER_S_MIN = 64 * 1024
"""The longest message must get through before its sender gives up, and pings with it."""


class RelayRefused(UsageRefused):
    """A relay cannot run like this."""

    code = "E_RELAY_SETTING"


@dataclasses.dataclass(frozen=True, slots=True)
class RelayLimits:
    """How much of a machine strangers may use. "Remote" is one IPv4 address or one IPv6 /64."""

    connections: int = 512
    """At once, in all."""
    connections_per_remote: int = 32
    """Listeners, dialers and those that have said nothing yet; fewer than a listener's streams, so that no single
    remote fills a listener."""
    opens_per_minute: int = 120
    """New connections of one remote; those that answer a dialer do not count."""
    listeners: int = 256
    streams: int = 128
    """At once, in all, those included that wait for an answer."""
    streams_per_listener: int = 64
    stream_bytes: int = 1 << 30
    """Most bytes of one stream, both directions together."""
    stream_bytes_per_s: int = 4 << 20
    """How fast one stream is forwarded, both directions together; a sender that is faster is not read meanwhile."""
    remote_bytes_per_s: int = 8 << 20
    """How fast all that one remote sends is forwarded."""
    stream_ms: int = 6 * 3_600_000
    """Longest life of one stream."""
    idle_ms: int = 600_000
    """A stream without a message is cut."""
    stall_ms: int = 60_000
    """A side that does not take what was sent is cut; pings may wait as long."""
    handshake_ms: int = HANDSHAKE_MS
    """From a connection to its first message."""
    answer_ms: int = 15_000
    """From a dial to the listener's answer."""
    name_listen_ms: int = 3 * 3_600_000
    """How long a name may be listened at; a key as long as it likes."""
    ping_ms: int = 20_000
    """Between signs of life on each connection."""

    def check(self) -> Self:
        """These limits. Raises RelayRefused where one makes no sense."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise RelayRefused(f"{field.name} is {getattr(self, field.name)}, it must be at least 1")
        for name in ("stream_bytes_per_s", "remote_bytes_per_s"):
            if getattr(self, name) < PACE_BYTES_PER_S_MIN:
                raise RelayRefused(
                    f"{name} is {getattr(self, name)}, it must be at least {PACE_BYTES_PER_S_MIN}",
                    hint="a slower stream would let its own longest message seem lost",
                )
        if self.listeners + 2 * self.streams > self.connections:
            raise RelayRefused(
                f"{self.listeners} listeners and {self.streams} streams need {self.listeners + 2 * self.streams} "
                f"connections, {self.connections} are allowed",
                hint="raise --connections, or lower --listeners or --streams",
            )
        return self
