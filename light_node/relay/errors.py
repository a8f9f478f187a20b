"""What dealing with a relay fails with.

UsageRefused
└── BadRelayAddress        no address of a relay, or one that is not protected on the way
NetworkUnreachable
├── RelayUnreachable       no connection to the relay, or it is no relay of this version
├── RelayRefused           the relay will not, and why
│   └── RelayReplaced      another program listens with the same key now
└── StreamLost             a stream ended before it was done
TimedOut
└── RelayTimedOut          the relay or the other side fell silent
NotFound
└── NobodyListens          nobody is there under this address
VerificationFailed
└── RelayBroke             the relay breaks its own protocol
"""

from __future__ import annotations

from dllm_protocol.errors import NetworkUnreachable, NotFound, TimedOut, UsageRefused, VerificationFailed


class BadRelayAddress(UsageRefused):
    """No address of a relay, or one that strangers on the way could listen to."""

    code = "E_RELAY_ADDRESS"


class RelayUnreachable(NetworkUnreachable):
    """No connection to a relay at that address."""

    code = "E_RELAY_UNREACHABLE"


class RelayRefused(NetworkUnreachable):
    """The relay will not do what was asked now."""

    code = "E_RELAY_REFUSED"


class RelayReplaced(RelayRefused):
    """Another program listens with the same key now; coming back would throw that one out in turn."""

    code = "E_RELAY_REPLACED"


class StreamLost(NetworkUnreachable):
    """A stream ended before it was done."""

    code = "E_RELAY_STREAM"


class RelayTimedOut(TimedOut):
    """The relay, or the other side behind it, fell silent."""

    code = "E_RELAY_TIMEOUT"


class NobodyListens(NotFound):
    """Nobody listens at the relay under this address."""

    code = "E_RELAY_NOBODY"


class RelayBroke(VerificationFailed):
    """The relay said what no relay says."""

    code = "E_RELAY_PROTOCOL"
