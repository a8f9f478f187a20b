"""The state tree's hashing: a Jellyfish Merkle tree over SHA-256 [format].

leaf     = sha256("JMT::LeafNode" ‖ sha256(key) ‖ sha256(value))
internal = sha256("JMT::IntrnalNode" ‖ left ‖ right)     (a vowel is dropped so that the prefix has 16 bytes)
empty    = "SPARSE_MERKLE_PLACEHOLDER_HASH__"

A key's place is sha256(key), read bit by bit, most significant first; a subtree with one leaf *is* that
leaf. So the root is a pure function of the map, whatever the history. Same as penumbra-zone/jmt@9b363c65
with SHA-256.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

LEAF_PREFIX = b"JMT::LeafNode"
INTERNAL_PREFIX = b"JMT::IntrnalNode"
PLACEHOLDER = b"SPARSE_MERKLE_PLACEHOLDER_HASH__"
DIGEST_BYTES = 32
DIGEST_BITS = 256


def key_position(key: bytes) -> bytes:
    """Where a key stands in the tree: the 32 bytes of sha256(key)."""
    return sha256(key).digest()


def leaf_hash(key: bytes, value: bytes) -> bytes:
    """Hash of the leaf that holds `value` under `key`."""
    return leaf_hash_at(sha256(key).digest(), value)


def leaf_hash_at(position: bytes, value: bytes) -> bytes:
    """Hash of the leaf that holds `value` at a 32-byte tree position."""
    return sha256(LEAF_PREFIX + position + sha256(value).digest()).digest()


def internal_hash(left: bytes, right: bytes) -> bytes:
    """Hash of a node over its two 32-byte children, either of which may be `PLACEHOLDER`."""
    return sha256(INTERNAL_PREFIX + left + right).digest()


def bit_at(position: bytes, depth: int) -> int:
    """The bit (0 = left, 1 = right) by which a key leaves the node at `depth`, counted from the root."""
    return position[depth >> 3] >> (7 - (depth & 7)) & 1


def root_of(mapping: Mapping[bytes, bytes]) -> bytes:
    """The tree's root over a whole map: the reference that every incremental tree must equal.

    Raises:
        ValueError: a key or a value is empty; ICS-23 cannot prove those.
    """
    if any(not key or not value for key, value in mapping.items()):
        raise ValueError("keys and values in the state tree are never empty")
    leaves = sorted((key_position(key), leaf_hash(key, value)) for key, value in mapping.items())
    return _subtree(leaves, 0)


def _subtree(leaves: list[tuple[bytes, bytes]], depth: int) -> bytes:
    if not leaves:
        return PLACEHOLDER
    if len(leaves) == 1:
        return leaves[0][1]
    split = next((i for i, (position, _) in enumerate(leaves) if bit_at(position, depth)), len(leaves))
    return internal_hash(_subtree(leaves[:split], depth + 1), _subtree(leaves[split:], depth + 1))
