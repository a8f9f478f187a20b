"""A piece that is being fetched."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from dllm_protocol.model_manifest import Piece
from local_worker.swarm.swarm import Swarm
from local_worker.swarm.web_seeding import WebSeeding


@dataclass(slots=True)
class Running:
    """A piece on its way: who is asked for it now, and who is left."""

    piece: Piece
    swarm: Swarm
    """The session that has the piece: the common one, or one of its own."""
    peers: set[str]
    """Asked together."""
    suspects: deque[str]
    """To be asked alone, once each."""
    web_seeds: set[str]
    spans: bytes | None
    """Hashes of its spans, without which web seeds are not asked."""
    together: int = 0
    """How many had their part since the session began with it."""
    alone: str = ""
    """Who is asked alone now."""
    web: WebSeeding | None = None
    """Where web seeds are asked and not peers."""
    since: float = field(default_factory=time.monotonic)
    then_bytes: int = 0
    """How much was there at that time."""
