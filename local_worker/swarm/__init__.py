"""Pieces of models between machines, by BitTorrent v2 and HTTP. What a worker needs of it is named here."""

from local_worker.swarm.hosting import SeedingProcess, ensure_pieces
from local_worker.swarm.sources import Limits, Sources

__all__ = ["Limits", "SeedingProcess", "Sources", "ensure_pieces"]
