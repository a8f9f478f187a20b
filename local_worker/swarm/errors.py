"""What can go wrong on the way from others' disks to ours, each under a name of its own."""

from __future__ import annotations

from dllm_protocol.errors import DllmError, NetworkUnreachable, TimedOut, UsageRefused, VerificationFailed


class SwarmMissing(UsageRefused):
    """libtorrent is not installed."""

    code = "E_LIBTORRENT"


class ListenRefused(UsageRefused):
    """Nobody can listen at the address that was asked for."""

    code = "E_LISTEN"


class NoSourceLeft(NetworkUnreachable):
    """No source has a piece, and none is left to ask."""

    code = "E_NO_SOURCE"


class NobodySeeds(NoSourceLeft):
    """No source was named, and no holder of the layers says where it seeds them."""

    code = "E_NOBODY_SEEDS"


class SourcesLied(VerificationFailed):
    """Every source of a piece sent bytes that are not the manifest's."""

    code = "E_SOURCES_LIED"


class FetchStalled(TimedOut):
    """Sources are left, but nothing came from them for too long."""

    code = "E_FETCH_STALLED"


class NothingToSeed(UsageRefused):
    """No package that could be served."""

    code = "E_NOTHING_TO_SEED"


class SwarmGone(DllmError):
    """The process that exchanges pieces ended without an answer."""

    code = "E_SWARM_GONE"
