"""What a light client says of itself: how fresh, how sure, and by whom."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TrustStatus(StrEnum):
    """One word for how much the node's answers are worth now."""

    VERIFIED = "verified"
    """The tip that the source shows is verified."""
    TRUSTING = "trusting"
    """There is valid trust, but the tip is not verified yet."""
    OFFLINE = "offline"
    """The source does not answer, or nothing trusted is young enough."""


class PeerRole(StrEnum):
    """What a node is asked for."""

    PRIMARY = "primary"
    WITNESS = "witness"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One node as this client sees it."""

    name: str
    role: PeerRole
    height: int
    """Highest header that it showed; 0 before the first."""
    problem: str
    """What was last wrong with it; empty when nothing was."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """What the light node says of itself."""

    state: TrustStatus
    height: int
    """Highest verified height; 0 when there is none."""
    hash: bytes
    """Hash of that header; empty when there is none."""
    lag_blocks: int
    """How many blocks the source's tip is ahead of that header, as far as it was seen."""
    root_age_s: int
    """Seconds since that header's time; trust rests on it."""
    expires_in_s: int
    """Seconds until that trust expires; negative once it has."""
    problem: str
    """Why it is not verified; empty when it is."""
    warning: str = ""
    """What is verified, but rests on less than it should; empty when nothing is missing."""
    peers: tuple[PeerStatus, ...] = ()
    """The primary, the witnesses, and the nodes that are asked no more."""
    last_refusal: str = ""
    """The last thing that was not believed, with both values; stays after what followed was good."""
