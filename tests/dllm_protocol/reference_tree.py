"""A prover that follows the tree's definition naively, to judge the real tree and the verifier by."""

from __future__ import annotations

from collections.abc import Mapping

from dllm_protocol import jmt
from dllm_protocol.ics23 import JMT_SPEC
from dllm_protocol.ics23_codec import ExistenceProof, InnerOp, NonExistenceProof
from dllm_protocol.jmt import INTERNAL_PREFIX, bit_at, key_position


def reference_existence(state: Mapping[bytes, bytes], key: bytes) -> ExistenceProof:
    """The proof that a present key is present."""
    steps: list[InnerOp] = []
    inside, depth = dict(state), 0
    while len(inside) > 1:
        side = bit_at(key_position(key), depth)
        halves = [
            {k: v for k, v in inside.items() if bit_at(key_position(k), depth) == bit} for bit in (0, 1)
        ]
        sibling = _subtree_root(halves[1 - side], depth + 1)
        prefix = INTERNAL_PREFIX + sibling if side else INTERNAL_PREFIX
        steps.append(InnerOp(1, prefix, b"" if side else sibling))
        inside, depth = halves[side], depth + 1
    return ExistenceProof(key, state[key], JMT_SPEC.leaf, tuple(reversed(steps)))


def reference_absence(state: Mapping[bytes, bytes], key: bytes) -> NonExistenceProof:
    """The proof that an absent key is absent, by its neighbours."""
    ordered = sorted(state, key=key_position)
    before = [k for k in ordered if key_position(k) < key_position(key)]
    after = [k for k in ordered if key_position(k) > key_position(key)]
    left = reference_existence(state, before[-1]) if before else None
    right = reference_existence(state, after[0]) if after else None
    return NonExistenceProof(key, left, right)


def _subtree_root(inside: Mapping[bytes, bytes], depth: int) -> bytes:
    leaves = sorted((key_position(k), jmt.leaf_hash(k, v)) for k, v in inside.items())
    return jmt._subtree(leaves, depth)
