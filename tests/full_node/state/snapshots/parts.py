"""Stores with a history, and snapshots of any pairs whatever, honest or not."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dllm_protocol.jmt import key_position
from full_node.state.snapshots import FORMAT, ApplyAnswer, Restoration, Shelf, Snapshot
from full_node.state.snapshots.format import (
    CHUNK_BYTES,
    Manifest,
    chunk_hash,
    describe,
    encode_pair,
    pack_chunk,
)
from full_node.state.store import Store

CHAIN = "test-00000000"
ROOT = b"\x07" * 32


def grow(store: Store, changes: dict[bytes, bytes | None]) -> bytes:
    """One more version; its root."""
    version = store.version + 1
    root, batch = store.put(version, changes)
    store.commit(batch, None, meta={}, validator_sets={})
    return root


def history(store: Store, versions: int, *, seed: int = 3, keys: int = 400) -> list[dict[bytes, bytes]]:
    """Random versions with removals, and the map after each."""
    rng = random.Random(seed)
    state: dict[bytes, bytes] = {}
    states = []
    for _ in range(versions):
        changes: dict[bytes, bytes | None] = {b"always": rng.randbytes(8)}
        for _ in range(keys // 4):
            key = b"key/%d" % rng.randrange(keys)
            changes[key] = None if rng.random() < 0.3 else rng.randbytes(rng.randrange(1, 200))
        grow(store, changes)
        state.update({key: value for key, value in changes.items() if value is not None})
        for key, value in changes.items():
            if value is None:
                state.pop(key, None)
        states.append(dict(state))
    return states


def in_order(pairs: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Pairs as a snapshot wants them."""
    return sorted(pairs, key=lambda pair: key_position(pair[0]))


@dataclass(frozen=True)
class Made:
    """A snapshot and its packed chunks."""

    manifest: Manifest
    chunks: Sequence[bytes]

    @property
    def snapshot(self) -> Snapshot:
        return describe(self.manifest)


def made_of_stream(stream: bytes, *, pairs: int, root: bytes = ROOT, height: int = 5) -> Made:
    """A snapshot whose content is these bytes."""
    contents = [stream[at : at + CHUNK_BYTES] for at in range(0, len(stream), CHUNK_BYTES)]
    manifest = Manifest(
        FORMAT, CHAIN, height, root, pairs, len(stream), tuple(chunk_hash(one) for one in contents)
    )
    return Made(manifest, [pack_chunk(one) for one in contents])


def made_of(pairs: Sequence[tuple[bytes, bytes]], root: bytes = ROOT) -> Made:
    """A snapshot of these pairs in this order."""
    return made_of_stream(b"".join(encode_pair(*pair) for pair in pairs), pairs=len(pairs), root=root)


def with_manifest(made: Made, **changed: object) -> Made:
    """The same chunks under another manifest."""
    return replace(made, manifest=replace(made.manifest, **changed))  # type: ignore[arg-type]  # named by tests


def on_shelf(shelf: Shelf, snapshot: Snapshot) -> list[bytes]:
    """The packed chunks that a shelf gives."""
    return [shelf.chunk(snapshot.height, index) for index in range(snapshot.chunks)]


def apply_all(restoration: Restoration, chunks: Sequence[bytes]) -> ApplyAnswer:
    """Hands in all chunks; the last answer."""
    return [restoration.apply(index, packed, "peer") for index, packed in enumerate(chunks)][-1]


def rows(path: Path) -> int:
    """How many leaves and pages can be seen in a store's file."""
    import sqlite3

    with sqlite3.connect(path) as look:
        counts = [look.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("leaves", "pages")]
    look.close()
    return sum(counts)
