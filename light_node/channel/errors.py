"""What the edge of a channel fails with."""

from __future__ import annotations

from dllm_protocol.errors import ChannelRefused, NetworkUnreachable, TimedOut


class ChannelUnreachable(NetworkUnreachable):
    """No endpoint of the provider took the connection."""

    code = "E_CHANNEL_UNREACHABLE"


class ChannelLost(NetworkUnreachable):
    """The connection ended."""

    code = "E_CHANNEL_LOST"


class ChannelTimedOut(TimedOut):
    """The other side did not answer, or did not take what was sent, in the time allowed."""

    code = "E_CHANNEL_TIMEOUT"


class SaidGoodbye(ChannelRefused):
    """The other side ended the channel and said why."""

    code = "E_CHANNEL_GOODBYE"
