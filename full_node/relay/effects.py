"""What a relay's core has done with its connections."""

from __future__ import annotations

from dataclasses import dataclass

from dllm_protocol.relay import CloseReason


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to a connection; whoever caused it is not read meanwhile."""

    peer: int
    message: bytes | str


@dataclass(frozen=True, slots=True)
class Join:
    """A connection is part of a stream from now on: it takes messages of full length."""

    peer: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close a connection, after everything that was sent to it."""

    peer: int
    reason: CloseReason


@dataclass(frozen=True, slots=True)
class Wait:
    """Read no more of a connection for a while: it sent faster than it may."""

    peer: int
    ms: int


Effect = Send | Join | Close | Wait
