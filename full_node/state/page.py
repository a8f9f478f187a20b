"""Pages: how the state tree's binary nodes are grouped for storage [format].

A page covers four levels of the tree: sixteen slots, one a nibble of the key's position. Grouping is only
for storage; what is hashed is the binary tree of `dllm_protocol.jmt`. In memory a page is a heap of 32
places: 1 is the page's own top, 2..15 the binary nodes inside, 16..31 the slots. Beside `None` (empty) and
the two kinds below, places 1..15 may hold the hash of a binary node.

Stored bytes: leaf bitmap (16 bits, big endian), page bitmap (16 bits), then for each filled slot in order
leaf: position (32) hash (32) version (8), or page: hash (32) version (8).
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from struct import Struct
from typing import NamedTuple, cast

from dllm_protocol.errors import VerificationFailed
from dllm_protocol.jmt import INTERNAL_PREFIX, PLACEHOLDER

SLOTS = 16
_BITMAPS, _LEAF, _PAGE = Struct(">HH"), Struct(">32s32sQ"), Struct(">32sQ")
_NIBBLES = bytes(int(chr(c), 16) if chr(c) in "0123456789abcdef" else 0 for c in range(256))


class StoreDamaged(VerificationFailed):
    """Stored bytes are not what this node wrote."""

    code = "E_STORE"


class Leaf(NamedTuple):
    """One key: its 32-byte position, its leaf hash, and the version that wrote it."""

    position: bytes
    hash: bytes
    version: int


class PageRef(NamedTuple):
    """A page below: the hash of its top and the version that wrote it."""

    hash: bytes
    version: int


Slot = Leaf | PageRef | None
Place = Leaf | PageRef | bytes | None
Heap = list[Place]


def nibbles_of(position: bytes) -> bytes:
    """The 64 nibbles of a position, one a byte, most significant first."""
    return position.hex().encode().translate(_NIBBLES)


def place_hash(place: Place) -> bytes:
    """The hash by which a place enters its parent."""
    if type(place) is bytes:
        return place
    return PLACEHOLDER if place is None else cast("Leaf | PageRef", place).hash


def rehash(heap: Heap, places: Iterable[int]) -> None:
    """Recomputes every place above the given ones; lone leaves rise, as the tree demands."""
    parents = {place >> 1 for place in places}
    while parents:
        for parent in parents:
            left, right = heap[2 * parent], heap[2 * parent + 1]
            if right is None and (left is None or type(left) is Leaf):
                heap[parent] = left
            elif left is None and type(right) is Leaf:
                heap[parent] = right
            else:
                heap[parent] = sha256(INTERNAL_PREFIX + place_hash(left) + place_hash(right)).digest()
        parents = {parent >> 1 for parent in parents if parent > 1}


def encode_slot(slot: Slot) -> bytes:
    """A single slot's stored bytes; empty for an empty slot."""
    if slot is None:
        return b""
    return _LEAF.pack(*slot) if type(slot) is Leaf else _PAGE.pack(*slot)


def decode_slot(data: bytes) -> Slot:
    """Reads `encode_slot`'s bytes; the kinds differ in length. Raises StoreDamaged."""
    if not data:
        return None
    if len(data) == 72:
        return Leaf(data[:32], data[32:64], int.from_bytes(data[64:], "big"))
    if len(data) == 40:
        return PageRef(data[:32], int.from_bytes(data[32:], "big"))
    raise StoreDamaged(f"a tree slot has {len(data)} bytes, written are 0, 40 or 72")


def encode_page(heap: Heap) -> bytes:
    """A page's stored bytes."""
    leaf_bits = page_bits = 0
    parts = [b""]
    bit = 1
    for slot in cast("list[Slot]", heap[SLOTS:]):
        if slot is not None:
            if type(slot) is Leaf:
                leaf_bits |= bit
                parts.append(_LEAF.pack(*slot))
            else:
                page_bits |= bit
                parts.append(_PAGE.pack(*slot))
        bit <<= 1
    parts[0] = _BITMAPS.pack(leaf_bits, page_bits)
    return b"".join(parts)


def decode_page(data: bytes) -> Heap:
    """Reads `encode_page`'s bytes and hashes what is inside. Raises StoreDamaged."""
    leaf_bits, page_bits = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
    heap: Heap = [None] * (2 * SLOTS)
    offset = 4
    filled = []
    for index in range(SLOTS):
        size = 72 if leaf_bits >> index & 1 else 40 if page_bits >> index & 1 else 0
        if size:
            heap[SLOTS + index] = decode_slot(data[offset : offset + size])
            filled.append(SLOTS + index)
            offset += size
    if offset != len(data) or leaf_bits & page_bits:
        raise StoreDamaged(f"a tree page has {len(data)} bytes, its bitmaps say {offset}")
    rehash(heap, filled)
    return heap
