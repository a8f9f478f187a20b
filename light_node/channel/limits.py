"""Every bound of the channel's edge, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from dllm_protocol.messages import MAX_FRAME_BYTES
from dllm_protocol.session.handshake import MAX_HELLO_BYTES

FRAME_BYTES = MAX_FRAME_BYTES
"""Longest websocket message; a sealed frame is one message."""
QUEUED_FRAMES = 4
"""Messages that wait unread before the socket is no longer read."""
WRITE_BUFFER_BYTES = 256 * 1024
"""Bytes that wait unsent before `send` waits."""


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """How much of a machine strangers may use."""

    connections: int = 256
    """At once, in all."""
    connections_per_address: int = 32
    """At once, from one IPv4 address or one IPv6 /64."""
    hello_bytes: int = MAX_HELLO_BYTES
    """Longest message before the channel is claimed."""
    handshake_ms: int = 5_000
    """From the connection to the claim."""
    idle_ms: int = 600_000
    """Without any frame from the other side."""
    ping_ms: int = 20_000
    """Between signs of life on the websocket; an answer must come within the same time."""
    write_ms: int = 10_000
    """Until the other side has taken what was sent."""
    close_ms: int = 1_000
    """For the goodbye of the websocket."""


DEFAULT_LIMITS = ChannelLimits()
