"""RFC 6962 Merkle trees over SHA-256, as CometBFT's crypto/merkle: roots, inclusion proofs, verification.

empty = sha256(""); leaf = sha256(0x00 ‖ x); inner = sha256(0x01 ‖ left ‖ right);
split at the largest power of two below n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from dllm_protocol.block_errors import InvalidBlock, require_equal

LEAF_PREFIX = b"\x00"
INNER_PREFIX = b"\x01"
EMPTY_ROOT = sha256(b"").digest()
AUNTS_MAX = 100
"""CometBFT's own bound on the length of a proof (crypto/merkle MaxAunts)."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Inclusion of one leaf in a tree of `total` leaves."""

    total: int
    """Number of leaves."""
    index: int
    """Position of the leaf, from 0."""
    leaf_hash: bytes
    """sha256(0x00 ‖ leaf)."""
    aunts: tuple[bytes, ...]
    """Sibling hashes from the leaf up to the root, 32 bytes each."""


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of one leaf."""
    return sha256(LEAF_PREFIX + leaf).digest()


def inner_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(INNER_PREFIX + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the Merkle root of leaves in order; sha256("") when there are none."""
    return _root_of_hashes([leaf_hash(leaf) for leaf in leaves])


def _root_of_hashes(hashes: Sequence[bytes]) -> bytes:
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    # Pairing neighbours and carrying an odd last node up gives the tree of splitting at powers of two.
    while len(level) > 1:
        paired = [inner_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def proof(leaves: Sequence[bytes], index: int) -> Proof:
    """Return the proof of the leaf at `index`.

    Raises:
        IndexError: there is no such leaf.
    """
    return proofs(leaves, (index,))[0]


def proofs(leaves: Sequence[bytes], indexes: Sequence[int] | None = None) -> list[Proof]:
    """Return proofs of several leaves (all of them by default), hashing the tree once."""
    wanted = range(len(leaves)) if indexes is None else indexes
    level = [leaf_hash(leaf) for leaf in leaves]
    levels = [level]
    while len(level) > 1:
        paired = [inner_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level = [*paired, level[-1]] if len(level) % 2 else paired
        levels.append(level)
    return [_proof_from_levels(levels, index) for index in wanted]


def _proof_from_levels(levels: Sequence[Sequence[bytes]], index: int) -> Proof:
    total = len(levels[0])
    if not 0 <= index < total:
        raise IndexError(f"leaf {index} of {total}")
    aunts = []
    position = index
    for level in levels[:-1]:
        sibling = position ^ 1
        if sibling < len(level):
            aunts.append(level[sibling])
        position //= 2
    return Proof(total, index, levels[0][index], tuple(aunts))


def verify(claim: Proof, expected_root: bytes, leaf: bytes) -> None:
    """Check that `leaf` stands at `claim.index` of a tree with root `expected_root`.

    Raises:
        InvalidBlock: the proof is not one, or leads elsewhere; the message names both values.
    """
    if claim.total < 1 or not 0 <= claim.index < claim.total:
        raise InvalidBlock(f"Merkle proof: leaf {claim.index} of {claim.total} leaves")
    if len(claim.aunts) > AUNTS_MAX:
        raise InvalidBlock(f"Merkle proof: {len(claim.aunts)} siblings, at most {AUNTS_MAX}")
    require_equal("Merkle proof leaf hash", claim.leaf_hash, leaf_hash(leaf))
    require_equal("Merkle proof root", _root_of_proof(claim), expected_root)


def _root_of_proof(claim: Proof) -> bytes:
    node, position, width, used = claim.leaf_hash, claim.index, claim.total, 0
    while width > 1:
        sibling = position ^ 1
        if sibling < width:
            if used == len(claim.aunts):
                raise InvalidBlock(
                    f"Merkle proof: {used} siblings are too few for leaf {claim.index} of {claim.total}"
                )
            aunt = claim.aunts[used]
            used += 1
            if len(aunt) != 32:
                raise InvalidBlock(f"Merkle proof: sibling {used - 1} has {len(aunt)} bytes, not 32")
            node = inner_hash(node, aunt) if position < sibling else inner_hash(aunt, node)
        position //= 2
        width = (width + 1) // 2
    if used != len(claim.aunts):
        raise InvalidBlock(f"Merkle proof: {len(claim.aunts)} siblings given, {used} needed")
    return node
