"""Restores a snapshot into an empty store: everything in one transaction, committed only under the right root.

Until the last chunk is in and the tree over all pairs has the trusted root, nothing that was written can be seen;
an end at any moment before (a kill, a bad snapshot, a better offer) leaves the store as empty as it was. Memory
holds one chunk and one page a level.
"""

from __future__ import annotations

import enum
import logging
import sqlite3
from dataclasses import dataclass

from dllm_protocol.errors import MalformedBytes
from dllm_protocol.jmt import key_position, leaf_hash_at
from full_node.state.page import Heap, Leaf, Slot, encode_page, place_hash
from full_node.state.snapshots.building import PageBuilder
from full_node.state.snapshots.format import (
    CHUNK_BYTES,
    FORMAT,
    Manifest,
    PairReader,
    Snapshot,
    SnapshotRefused,
    chunk_hash,
    snapshot_hash,
    unpack_chunk,
)
from full_node.state.store import Store

log = logging.getLogger(__name__)
STATE_BYTES_MAX = 1 << 36
"""64 GiB: what the format can carry."""


class OfferResult(enum.IntEnum):
    """Answer to an offer; numbers of ABCI's ResponseOfferSnapshot."""

    ACCEPT = 1
    ABORT = 2
    REJECT = 3
    REJECT_FORMAT = 4
    REJECT_SENDER = 5


class ApplyResult(enum.IntEnum):
    """Answer to a chunk; numbers of ABCI's ResponseApplySnapshotChunk."""

    ACCEPT = 1
    ABORT = 2
    RETRY = 3
    RETRY_SNAPSHOT = 4
    REJECT_SNAPSHOT = 5


@dataclass(frozen=True, slots=True)
class OfferAnswer:
    """What is thought of an offer, and why where it is refused."""

    result: OfferResult
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ApplyAnswer:
    """What became of a chunk.

    Attributes:
        result: what to do now.
        refetch: chunks to ask for again.
        reject_senders: peers that nothing more is to be taken from.
        reason: why, where it is refused.
    """

    result: ApplyResult
    refetch: tuple[int, ...] = ()
    reject_senders: tuple[str, ...] = ()
    reason: str = ""


class Restoration:
    """Offers and chunks in, a restored store out. One thread, the store's writing one."""

    def __init__(self, store: Store, chain_id: str, *, state_bytes_max: int = STATE_BYTES_MAX) -> None:
        """Only of use while `store` is empty (version −1)."""
        self._store = store
        self._chain_id = chain_id
        self._state_bytes_max = state_bytes_max
        self._filling: _Filling | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether an accepted snapshot waits for chunks."""
        return self._filling is not None

    def offer(self, snapshot: Snapshot, app_hash: bytes) -> OfferAnswer:
        """Judges an offered snapshot; accepted, it replaces one that was under way.

        Args:
            app_hash: the trusted root of the state after the snapshot's height, e.g. from a light client.
        """
        if self._filling is None and self._store.version >= 0:
            return OfferAnswer(
                OfferResult.ABORT,
                f"the store is at height {self._store.version}, only an empty one is filled",
            )
        if snapshot.format != FORMAT:
            return OfferAnswer(OfferResult.REJECT_FORMAT, f"format {snapshot.format}, known is {FORMAT}")
        if snapshot_hash(snapshot.metadata) != snapshot.hash:
            return OfferAnswer(OfferResult.REJECT_SENDER, "the snapshot's hash is not its manifest's")
        try:
            manifest = Manifest.decode(snapshot.metadata)
        except MalformedBytes as error:
            return OfferAnswer(OfferResult.REJECT_SENDER, error.message)
        if (manifest.height, len(manifest.chunk_hashes)) != (snapshot.height, snapshot.chunks):
            return OfferAnswer(OfferResult.REJECT_SENDER, "height or chunks differ from the manifest's")
        wanted = -(-manifest.content_bytes // CHUNK_BYTES)
        if wanted != snapshot.chunks or wanted == 0 or manifest.pairs == 0:
            return OfferAnswer(
                OfferResult.REJECT_SENDER,
                f"{manifest.content_bytes} bytes are {wanted} chunks, the manifest has {snapshot.chunks}",
            )
        if manifest.chain_id != self._chain_id:
            return OfferAnswer(OfferResult.REJECT, f"of chain {manifest.chain_id}, not {self._chain_id}")
        if manifest.root != app_hash:
            return OfferAnswer(
                OfferResult.REJECT, f"says root {manifest.root.hex()}, trusted is {app_hash.hex()}"
            )
        if manifest.content_bytes > self._state_bytes_max:
            return OfferAnswer(
                OfferResult.REJECT,
                f"{manifest.content_bytes} bytes, at most {self._state_bytes_max} are taken",
            )
        self.abandon()
        self._filling = _Filling(self._store, manifest)
        log.info("restoring height=%d chunks=%d", manifest.height, snapshot.chunks)
        return OfferAnswer(OfferResult.ACCEPT)

    def apply(self, index: int, packed: bytes, sender: str) -> ApplyAnswer:
        """Takes the next chunk. After the last one the store is live at the snapshot's height."""
        filling = self._filling
        if filling is None:
            return ApplyAnswer(ApplyResult.ABORT, reason="no snapshot was accepted")
        if index < filling.next_index:
            return ApplyAnswer(ApplyResult.ACCEPT)  # it is in already, under the hash that it must have
        if index > filling.next_index:
            return ApplyAnswer(
                ApplyResult.ABORT, reason=f"chunk {index} came before chunk {filling.next_index}"
            )
        try:
            content = unpack_chunk(packed, filling.content_bytes_of(index))
            if chunk_hash(content) != filling.manifest.chunk_hashes[index]:
                raise SnapshotRefused(f"chunk {index} has another hash than the manifest says")
        except SnapshotRefused as error:
            # The manifest is agreed on, so whoever sent this chunk is to blame and another peer may have it.
            return ApplyAnswer(
                ApplyResult.RETRY, (index,), (sender,) if sender else (), f"from {sender!r}: {error.message}"
            )
        try:
            filling.add(content)
            if filling.next_index == len(filling.manifest.chunk_hashes):
                filling.finish()
                self._filling = None
        except SnapshotRefused as error:
            # The manifest itself promises what is no state, so all who offered it are wrong.
            self.abandon()
            return ApplyAnswer(ApplyResult.REJECT_SNAPSHOT, reason=error.message)
        except BaseException:
            self.abandon()
            raise
        return ApplyAnswer(ApplyResult.ACCEPT)

    def abandon(self) -> None:
        """Gives up what is under way; the store is empty as before."""
        if self._filling is not None:
            self._filling = None
            self._store.abandon_restore()


class _Filling:
    """One snapshot on its way into the store."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.manifest = manifest
        self.next_index = 0
        self._store = store
        self._connection: sqlite3.Connection = store.begin_restore()
        self._reader = PairReader()
        self._pages: list[tuple[bytes, int, bytes]] = []
        self._builder = PageBuilder(manifest.height, self._keep_page)
        self._last_position = b""
        self._pairs = 0

    def content_bytes_of(self, index: int) -> int:
        """How long a chunk's content must be: all are full but the last."""
        return min(CHUNK_BYTES, self.manifest.content_bytes - index * CHUNK_BYTES)

    def add(self, content: bytes) -> None:
        """Writes the pairs of the next chunk. Raises SnapshotRefused."""
        height = self.manifest.height
        rows = []
        for key, value in self._reader.feed(content):
            position = key_position(key)
            if position <= self._last_position:
                raise SnapshotRefused(f"key {key!r} stands twice or out of order")
            self._last_position = position
            self._builder.add(Leaf(position, leaf_hash_at(position, value), height))
            rows.append((position, height, key, value))
        self._pairs += len(rows)
        self._connection.executemany("INSERT INTO leaves VALUES (?,?,?,?)", rows)
        self._write_pages()
        self.next_index += 1

    def finish(self) -> None:
        """Makes the state live. Raises SnapshotRefused where it is not the promised one."""
        manifest = self.manifest
        if not self._reader.is_between_pairs:
            raise SnapshotRefused("the last pair is cut off")
        if self._pairs != manifest.pairs:
            raise SnapshotRefused(f"{self._pairs} pairs came, the manifest says {manifest.pairs}")
        slot: Slot = self._builder.finish()
        if place_hash(slot) != manifest.root:
            raise SnapshotRefused(
                f"the pairs have root {place_hash(slot).hex()}, trusted is {manifest.root.hex()}"
            )
        self._write_pages()
        self._store.finish_restore(manifest.height, slot)
        log.info("restored height=%d root=%s pairs=%d", manifest.height, manifest.root.hex(), self._pairs)

    def _keep_page(self, path: bytes, heap: Heap) -> None:
        self._pages.append((path, self.manifest.height, encode_page(heap)))

    def _write_pages(self) -> None:
        self._connection.executemany("INSERT INTO pages VALUES (?,?,?)", self._pages)
        self._pages.clear()
