"""The incremental tree against the definition of its root, over random histories."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.ics23 import ProofInvalid, verify_membership, verify_non_membership
from dllm_protocol.jmt import PLACEHOLDER, root_of
from full_node.state.page import PageRef, Slot, StoreDamaged, decode_page, decode_slot, encode_slot
from full_node.state.tree import PageCache, Prover, StateTree, TreeUpdateBatch
from tests.dllm_protocol.reference_tree import reference_absence, reference_existence


class MemoryTree:
    """A tree over dictionaries, with every version kept."""

    def __init__(self, cached_pages: int = 1000) -> None:
        self.pages: dict[tuple[bytes, int], bytes] = {}
        self.leaves: dict[tuple[bytes, int], tuple[bytes, bytes | None]] = {}
        self.slots: list[Slot] = []
        self.tree = StateTree(PageCache(self._page, cached_pages), None)
        self.prover = Prover(PageCache(self._page, 1), self._original)

    def _page(self, path: bytes, version: int) -> bytes | None:
        return self.pages.get((path, version))

    def _original(self, position: bytes, version: int) -> tuple[bytes, bytes]:
        key, value = self.leaves[(position, version)]
        assert value is not None
        return key, value

    def apply(self, changes: Mapping[bytes, bytes | None]) -> TreeUpdateBatch:
        root, batch = self.tree.put(len(self.slots), changes)
        assert root == batch.root
        for path, version, page in batch.page_rows():
            self.pages[(path, version)] = page
        for position, key, value in batch.leaves:
            self.leaves[(position, batch.version)] = (key, value)
        self.tree.commit(batch)
        self.slots.append(batch.slot)
        return batch

    def reachable(
        self, slot: Slot, path: bytes = b""
    ) -> tuple[set[tuple[bytes, int]], set[tuple[bytes, int]]]:
        """(pages, leaves) that a root slot reaches, by path or position and version."""
        if slot is None:
            return set(), set()
        if not isinstance(slot, PageRef):
            return set(), {(slot.position, slot.version)}
        pages, leaves = {(path, slot.version)}, set()
        for index, child in enumerate(decode_page(self.pages[(path, slot.version)])[16:]):
            assert not isinstance(child, bytes)
            below = self.reachable(child, path + bytes([index]))
            pages |= below[0]
            leaves |= below[1]
        return pages, leaves


KEYS = st.integers(0, 30).map(lambda n: f"key/{n}".encode())
CHANGES = st.dictionaries(KEYS, st.one_of(st.none(), st.binary(min_size=1, max_size=3)), max_size=12)


@given(st.lists(CHANGES, max_size=8))
def test_the_root_is_a_pure_function_of_the_map(history: list[dict[bytes, bytes | None]]) -> None:
    tree, state = MemoryTree(cached_pages=2), dict[bytes, bytes]()
    for changes in history:
        for key, value in changes.items():
            if value is None:
                state.pop(key, None)
            else:
                state[key] = value
        assert tree.apply(changes).root == root_of(state)


def _history(seed: int, versions: int) -> tuple[MemoryTree, list[dict[bytes, bytes]]]:
    rng = random.Random(seed)
    tree, states, state = MemoryTree(), list[dict[bytes, bytes]](), dict[bytes, bytes]()
    for version in range(versions):
        changes: dict[bytes, bytes | None] = {}
        for _ in range(rng.choice([1, 5, 60])):
            key = f"key/{rng.randrange(300)}".encode()
            changes[key] = None if rng.random() < 0.4 and version else rng.randbytes(rng.randint(1, 40))
        tree.apply(changes)
        state = {k: v for k, v in {**state, **changes}.items() if v is not None}
        states.append(state)
    return tree, states


def test_every_version_stays_provable_and_proofs_equal_the_reference() -> None:
    tree, states = _history(7, 25)
    rng = random.Random(8)
    for slot, state in zip(tree.slots, states, strict=True):
        root = root_of(state)
        for number in rng.sample(range(330), 25):
            key = f"key/{number}".encode()
            if not state:
                continue
            value, proof = tree.prover.prove(slot, key)
            assert value == state.get(key)
            if value is None:
                verify_non_membership(proof, root, key)
            else:
                verify_membership(proof, root, key, value)


def test_proofs_are_those_of_the_definition() -> None:
    from dllm_protocol.ics23_codec import decode_commitment_proof

    tree, states = _history(9, 12)
    for number in range(320):
        key = f"key/{number}".encode()
        _, proof = tree.prover.prove(tree.slots[-1], key)
        build = reference_existence if key in states[-1] else reference_absence
        assert decode_commitment_proof(proof) == build(states[-1], key)


def test_a_proof_of_an_old_version_does_not_hold_at_a_new_one() -> None:
    tree = MemoryTree()
    first = tree.apply({f"k{n}".encode(): b"old" for n in range(20)})
    second = tree.apply({b"k3": b"new"})
    value, proof = tree.prover.prove(tree.slots[0], b"k3")
    assert value == b"old"
    verify_membership(proof, first.root, b"k3", b"old")
    with pytest.raises(ProofInvalid, match="the header has"):
        verify_membership(proof, second.root, b"k3", b"old")


def test_stale_rows_are_exactly_what_newer_versions_do_not_reach() -> None:
    tree, _ = _history(11, 1)
    rng = random.Random(12)
    for _ in range(40):
        before = tree.reachable(tree.slots[-1])
        changes = {
            f"key/{rng.randrange(300)}".encode(): None if rng.random() < 0.6 else rng.randbytes(4)
            for _ in range(rng.choice([1, 10, 80]))
        }
        batch = tree.apply(changes)
        after = tree.reachable(tree.slots[-1])
        assert set(batch.stale_pages) == before[0] - after[0]
        assert set(batch.stale_leaves) == before[1] - after[1]
        assert len(batch.stale_pages) == len(set(batch.stale_pages))


def test_deleting_everything_gives_the_empty_tree_again() -> None:
    tree, states = _history(13, 6)
    assert tree.apply(dict.fromkeys(states[-1])).root == PLACEHOLDER
    assert tree.slots[-1] is None
    with pytest.raises(StoreDamaged, match="empty tree"):
        tree.prover.prove(None, b"k")


def test_writing_the_same_value_again_writes_nothing() -> None:
    tree = MemoryTree()
    tree.apply({b"a": b"1", b"b": b"2"})
    batch = tree.apply({b"a": b"1", b"c": None})
    assert (batch.pages, batch.leaves, batch.stale_pages, batch.stale_leaves) == ({}, [], [], [])


def test_put_changes_nothing_until_commit() -> None:
    tree = MemoryTree()
    tree.apply({f"k{n}".encode(): b"1" for n in range(50)})
    root = tree.tree.root
    discarded, _ = tree.tree.put(1, {f"k{n}".encode(): b"2" for n in range(25)})
    assert tree.tree.root == root
    again, _ = tree.tree.put(1, {f"k{n}".encode(): b"2" for n in range(25)})
    assert again == discarded


def test_empty_keys_and_values_are_refused() -> None:
    tree = MemoryTree()
    for bad in ({b"": b"v"}, {b"k": b""}):
        with pytest.raises(ValueError, match="never empty"):
            tree.tree.put(0, bad)


def test_damaged_pages_are_named() -> None:
    tree, _ = _history(15, 3)
    where = next(iter(tree.pages))
    page = tree.pages[where]
    with pytest.raises(StoreDamaged, match="bitmaps"):
        decode_page(page + b"x")
    with pytest.raises(StoreDamaged, match="0, 40 or 72"):
        decode_slot(b"x")
    del tree.pages[where]
    with pytest.raises(StoreDamaged, match="missing"):
        PageCache(lambda path, version: tree.pages.get((path, version))).page(*where)
    assert decode_slot(encode_slot(tree.slots[0])) == tree.slots[0]
