"""The state tree: versioned, Jellyfish-Merkle-shaped, "compute, then commit".

`StateTree.put` computes a new version without touching anything: it returns the root and a
`TreeUpdateBatch`. The store writes the batch in the block's transaction, then `StateTree.commit` makes it
the current version. The root is a pure function of the map (`dllm_protocol.jmt.root_of`); which versions
wrote which pages is storage only and enters no hash.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter

from dllm_protocol.ics23 import JMT_SPEC
from dllm_protocol.ics23_codec import (
    ExistenceProof,
    InnerOp,
    NonExistenceProof,
    encode_commitment_proof,
)
from dllm_protocol.jmt import INTERNAL_PREFIX, key_position, leaf_hash_at
from full_node.state.page import (
    SLOTS,
    Heap,
    Leaf,
    PageRef,
    Slot,
    StoreDamaged,
    decode_page,
    encode_page,
    nibbles_of,
    place_hash,
    rehash,
)

DEFAULT_CACHED_PAGES = 32_768
_Change = tuple[bytes, bytes, "Leaf | None"]  # nibbles, position, what is to stand there


@dataclass
class TreeUpdateBatch:
    """What one version adds and what it makes unreachable; written in the block's transaction.

    Attributes:
        version: the new version (block height).
        root: the new root hash, 32 bytes.
        slot: the new root slot.
        pages: path (one nibble a byte) → new page.
        leaves: (position, key, value) of leaves written; value None where deleted.
        stale_pages: (path, version) that no later version reaches.
        stale_leaves: (position, version) likewise.
    """

    version: int
    root: bytes
    slot: Slot = None
    pages: dict[bytes, Heap] = field(default_factory=dict)
    leaves: list[tuple[bytes, bytes, bytes | None]] = field(default_factory=list)
    stale_pages: list[tuple[bytes, int]] = field(default_factory=list)
    stale_leaves: list[tuple[bytes, int]] = field(default_factory=list)

    def page_rows(self) -> list[tuple[bytes, int, bytes]]:
        """(path, version, bytes) of every new page."""
        return [(path, self.version, encode_page(heap)) for path, heap in self.pages.items()]


class PageCache:
    """Reads pages through a bounded memory; least recently used go first."""

    def __init__(
        self, load: Callable[[bytes, int], bytes | None], capacity: int = DEFAULT_CACHED_PAGES
    ) -> None:
        self._load = load
        self._capacity = capacity
        self._pages: OrderedDict[tuple[bytes, int], Heap] = OrderedDict()

    def page(self, path: bytes, version: int) -> Heap:
        """The page written by `version` at `path`; not to be changed. Raises StoreDamaged when it is
        missing.
        """
        where = (path, version)
        heap = self._pages.get(where)
        if heap is not None:
            self._pages.move_to_end(where)
            return heap
        data = self._load(path, version)
        if data is None:
            raise StoreDamaged(f"tree page at {path.hex()!r} of version {version} is missing")
        heap = decode_page(data)
        self.remember(path, version, heap)
        return heap

    def remember(self, path: bytes, version: int, heap: Heap) -> None:
        """Keeps a page that is known to be stored."""
        self._pages[(path, version)] = heap
        while len(self._pages) > self._capacity:
            self._pages.popitem(last=False)

    def forget(self, path: bytes, version: int) -> None:
        """Drops a page that newer versions do not reach."""
        self._pages.pop((path, version), None)


class StateTree:
    """The writer's view: the current version, and how to compute the next."""

    def __init__(self, pages: PageCache, slot: Slot) -> None:
        self._pages = pages
        self._slot = slot

    @property
    def root(self) -> bytes:
        """Root hash of the current version."""
        return place_hash(self._slot)

    def put(self, version: int, changes: Mapping[bytes, bytes | None]) -> tuple[bytes, TreeUpdateBatch]:
        """Computes the version in which `changes` (None deletes) are applied to the current one.

        Raises:
            ValueError: an empty key or value; ICS-23 cannot prove those.
        """
        batch = TreeUpdateBatch(version, b"")
        wanted: list[_Change] = []
        pairs: dict[bytes, tuple[bytes, bytes | None]] = {}
        for key, value in changes.items():
            if not key or value == b"":
                raise ValueError(f"keys and values in the state tree are never empty (key {key!r})")
            position = key_position(key)
            leaf = None if value is None else Leaf(position, leaf_hash_at(position, value), version)
            wanted.append((nibbles_of(position), position, leaf))
            pairs[position] = (key, value)
        wanted.sort(key=itemgetter(1))
        update = _Update(self._pages, batch)
        batch.slot = update.apply(self._slot, b"", wanted) if wanted else self._slot
        batch.root = place_hash(batch.slot)
        batch.leaves = [(position, *pairs[position]) for position in update.written]
        return batch.root, batch

    def reset(self, slot: Slot) -> None:
        """Makes another tree current, whose pages the store has; used when a snapshot was restored."""
        self._slot = slot

    def commit(self, batch: TreeUpdateBatch) -> None:
        """Makes a batch current, after the store has written it."""
        for path, version in batch.stale_pages:
            self._pages.forget(path, version)
        for path, heap in batch.pages.items():
            self._pages.remember(path, batch.version, heap)
        self._slot = batch.slot


class _Update:
    """One computation of a new version."""

    def __init__(self, pages: PageCache, batch: TreeUpdateBatch) -> None:
        self._pages = pages
        self._batch = batch
        self.written: list[bytes] = []

    def apply(self, slot: Slot, path: bytes, changes: list[_Change]) -> Slot:
        """The slot at `path` after `changes`, which are sorted and all below it; the same object when
        nothing changed.
        """
        if type(slot) is not PageRef:
            return self._apply_to_leaf(slot, path, changes)
        heap = self._pages.page(path, slot.version).copy()
        depth = len(path)
        touched = []
        for nibble, below in _by_nibble(changes, depth):
            place = SLOTS + nibble
            old = heap[place]
            assert not isinstance(old, bytes)
            new = self.apply(old, below[0][0][: depth + 1], below)
            if new is not old:
                heap[place] = new
                touched.append(place)
        if not touched:
            return slot
        self._batch.stale_pages.append((path, slot.version))
        rehash(heap, touched)
        return self._emit(heap, path)

    def _apply_to_leaf(self, old: Slot, path: bytes, changes: list[_Change]) -> Slot:
        assert not isinstance(old, PageRef)
        leaves: list[tuple[bytes, Leaf]] = []
        kept = old
        for nibbles, position, new in changes:
            same_key = old is not None and old.position == position
            if same_key:
                assert old is not None
                if new is not None and new.hash == old.hash:
                    continue
                kept = None
                self._batch.stale_leaves.append((position, old.version))
            if new is not None:
                leaves.append((nibbles, new))
            if new is not None or same_key:
                self.written.append(position)
        if kept is not None:
            leaves.append((nibbles_of(kept.position), kept))
            leaves.sort(key=itemgetter(0))
        return self._build(leaves, path)

    def _build(self, leaves: list[tuple[bytes, Leaf]], path: bytes) -> Slot:
        if not leaves:
            return None
        if len(leaves) == 1:
            return leaves[0][1]
        heap: Heap = [None] * (2 * SLOTS)
        depth = len(path)
        touched = []
        start = 0
        while start < len(leaves):
            nibble = leaves[start][0][depth]
            end = start + 1
            while end < len(leaves) and leaves[end][0][depth] == nibble:
                end += 1
            heap[SLOTS + nibble] = self._build(leaves[start:end], leaves[start][0][: depth + 1])
            touched.append(SLOTS + nibble)
            start = end
        rehash(heap, touched)
        return self._emit(heap, path)

    def _emit(self, heap: Heap, path: bytes) -> Slot:
        top = heap[1]
        if isinstance(top, bytes):
            self._batch.pages[path] = heap
            return PageRef(top, self._batch.version)
        return top


def _by_nibble(changes: list[_Change], depth: int) -> list[tuple[int, list[_Change]]]:
    groups = []
    start, count = 0, len(changes)
    while start < count:
        nibble = changes[start][0][depth]
        end = start + 1
        while end < count and changes[end][0][depth] == nibble:
            end += 1
        groups.append((nibble, changes[start:end]))
        start = end
    return groups


class Prover:
    """The reader's view: proofs at any stored version."""

    def __init__(self, pages: PageCache, original: Callable[[bytes, int], tuple[bytes, bytes]]) -> None:
        """`original` gives (key, value) of the leaf at a position as a version wrote it."""
        self._pages = pages
        self._original = original

    def prove(self, root: Slot, key: bytes) -> tuple[bytes | None, bytes]:
        """(value or None where absent, CommitmentProof bytes) of `key` under a root slot.

        Raises:
            StoreDamaged: a page is missing, or the tree is empty (absence then has no neighbour).
        """
        position = key_position(key)
        leaf = self._find(root, position)
        if leaf is not None and leaf.position == position:
            proof = self._existence(root, leaf)
            return proof.value, encode_commitment_proof(proof)
        before, after = self._neighbour(root, position, -1), self._neighbour(root, position, 1)
        if before is None and after is None:
            raise StoreDamaged("absence in an empty tree cannot be proved")
        absence = NonExistenceProof(
            key,
            self._existence(root, before) if before else None,
            self._existence(root, after) if after else None,
        )
        return None, encode_commitment_proof(absence)

    def _find(self, root: Slot, position: bytes) -> Leaf | None:
        slot, nibbles, depth = root, nibbles_of(position), 0
        while type(slot) is PageRef:
            place = self._pages.page(nibbles[:depth], slot.version)[SLOTS + nibbles[depth]]
            assert not isinstance(place, bytes)
            slot, depth = place, depth + 1
        assert not isinstance(slot, PageRef)
        return slot

    def _existence(self, root: Slot, leaf: Leaf) -> ExistenceProof:
        key, value = self._original(leaf.position, leaf.version)
        steps: list[InnerOp] = []
        slot, nibbles, depth = root, nibbles_of(leaf.position), 0
        while type(slot) is PageRef:
            heap = self._pages.page(nibbles[:depth], slot.version)
            place = 1
            while place < SLOTS and isinstance(heap[place], bytes):
                side = nibbles[depth] >> (4 - place.bit_length()) & 1
                place = 2 * place + side
                sibling = place_hash(heap[place ^ 1])
                if side:
                    steps.append(InnerOp(JMT_SPEC.inner.hash, INTERNAL_PREFIX + sibling, b""))
                else:
                    steps.append(InnerOp(JMT_SPEC.inner.hash, INTERNAL_PREFIX, sibling))
            reached = heap[place]
            assert not isinstance(reached, bytes)
            slot, depth = reached, depth + 1
        return ExistenceProof(key, value, JMT_SPEC.leaf, tuple(reversed(steps)))

    def _neighbour(self, root: Slot, position: bytes, direction: int) -> Leaf | None:
        """The nearest leaf before (-1) or after (1) an absent position."""
        nibbles = nibbles_of(position)
        nearest: tuple[Slot, bytes] | None = None
        slot, depth = root, 0
        while type(slot) is PageRef:
            heap, nibble = self._pages.page(nibbles[:depth], slot.version), nibbles[depth]
            others = range(nibble - 1, -1, -1) if direction < 0 else range(nibble + 1, SLOTS)
            for other in others:
                found = heap[SLOTS + other]
                if found is not None:
                    assert not isinstance(found, bytes)
                    nearest = (found, nibbles[:depth] + bytes([other]))
                    break
            below = heap[SLOTS + nibble]
            assert not isinstance(below, bytes)
            slot, depth = below, depth + 1
        if type(slot) is Leaf and (slot.position > position) == (direction > 0):
            return slot
        return self._outermost(*nearest, -direction) if nearest else None

    def _outermost(self, slot: Slot, path: bytes, direction: int) -> Leaf | None:
        """The first (-1) or last (1) leaf below a slot."""
        while type(slot) is PageRef:
            heap = self._pages.page(path, slot.version)
            order = range(SLOTS) if direction < 0 else range(SLOTS - 1, -1, -1)
            nibble = next(index for index in order if heap[SLOTS + index] is not None)
            below = heap[SLOTS + nibble]
            assert not isinstance(below, bytes)
            slot, path = below, path + bytes([nibble])
        assert not isinstance(slot, PageRef)
        return slot
