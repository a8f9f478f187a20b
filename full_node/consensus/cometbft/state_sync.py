"""ABCI's four snapshot requests over the node's shelf of snapshots and its restoration; it only translates."""

from __future__ import annotations

import logging

from full_node.consensus.abci import requests, responses
from full_node.state.snapshots import FORMAT, Restoration, Shelf, SnapshotTaker

log = logging.getLogger(__name__)
OFFERED_MAX = 10
"""CometBFT asks a peer for its snapshots and takes this many of the answer (statesync/reactor.go)."""


class StateSync:
    """What this node gives to others, and how it begins from another's."""

    def __init__(self, shelf: Shelf, taker: SnapshotTaker, restoration: Restoration) -> None:
        self._shelf = shelf
        self._taker = taker
        self._restoration = restoration

    @property
    def is_under_way(self) -> bool:
        """Whether a snapshot is being restored."""
        return self._restoration.is_under_way

    def note_committed(self, height: int) -> None:
        """A block is in the store: perhaps one to take a snapshot of."""
        self._taker.note_committed(height)

    def list(self, _request: requests.ListSnapshots) -> responses.ListSnapshots:
        """What others can have, newest first."""
        return responses.ListSnapshots(tuple(self._shelf.list()[:OFFERED_MAX]))

    def load(self, request: requests.LoadSnapshotChunk) -> responses.LoadSnapshotChunk:
        """A chunk; empty where there is none."""
        if request.format != FORMAT:
            return responses.LoadSnapshotChunk(b"")
        return responses.LoadSnapshotChunk(self._shelf.chunk(request.height, request.chunk))

    def offer(self, request: requests.OfferSnapshot) -> responses.OfferSnapshot:
        """Judges an offered snapshot against the root that CometBFT's light client verified."""
        answer = self._restoration.offer(request.snapshot, request.app_hash)
        log.info(
            "snapshot offered height=%d: %s %s", request.snapshot.height, answer.result.name, answer.reason
        )
        return responses.OfferSnapshot(answer.result)

    def apply(self, request: requests.ApplySnapshotChunk) -> responses.ApplySnapshotChunk:
        """Takes a chunk in."""
        answer = self._restoration.apply(request.index, request.chunk, request.sender)
        if answer.reason:
            log.warning("chunk %d: %s %s", request.index, answer.result.name, answer.reason)
        return responses.ApplySnapshotChunk(answer.result, answer.refetch, answer.reject_senders)
