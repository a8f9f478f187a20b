"""A tree built from sorted leaves is the tree that changes would have made, page for page."""

from __future__ import annotations

import random

import pytest

from dllm_protocol.jmt import key_position, leaf_hash_at, root_of
from full_node.state.page import Heap, Leaf, encode_page, place_hash
from full_node.state.snapshots.building import PageBuilder
from full_node.state.tree import PageCache, StateTree


def _nothing(_path: bytes, _version: int) -> bytes | None:
    return None


def _built(state: dict[bytes, bytes]) -> tuple[bytes, dict[bytes, bytes]]:
    pages: dict[bytes, bytes] = {}

    def keep(path: bytes, heap: Heap) -> None:
        assert path not in pages
        pages[path] = encode_page(heap)

    builder = PageBuilder(1, keep)
    for position, value in sorted((key_position(key), value) for key, value in state.items()):
        builder.add(Leaf(position, leaf_hash_at(position, value), 1))
    return place_hash(builder.finish()), pages


@pytest.mark.parametrize("size", [0, 1, 2, 3, 15, 16, 17, 100, 5_000])
def test_root_and_pages_are_those_of_the_tree(size: int) -> None:
    rng = random.Random(size)
    state = {rng.randbytes(12): rng.randbytes(5) for _ in range(size)}
    root, pages = _built(state)
    tree_root, batch = StateTree(PageCache(_nothing), None).put(1, dict(state))
    assert root == tree_root == root_of(state)
    assert pages == {path: data for path, _, data in batch.page_rows()}


def test_leaves_deep_below_a_shared_prefix_are_placed_deep() -> None:
    positions = [bytes(31) + bytes([last]) for last in (0, 1, 0x10)] + [b"\xff" * 32]
    depths: list[int] = []
    builder = PageBuilder(1, lambda path, _heap: depths.append(len(path)))
    for position in positions:
        builder.add(Leaf(position, position, 1))
    builder.finish()
    assert sorted(depths) == list(range(64))


@pytest.mark.parametrize("second", [b"\x05" * 32, b"\x04" * 32])
def test_leaves_must_ascend(second: bytes) -> None:
    builder = PageBuilder(1, lambda _path, _heap: None)
    builder.add(Leaf(b"\x05" * 32, b"", 1))
    with pytest.raises(ValueError, match="ascending"):
        builder.add(Leaf(second, b"", 1))
