"""Verifying ICS-23 proofs, and the two doors through which our state tree's proofs pass.

`check_existence` and `check_non_existence` are the general algorithm (cosmos/ics23@7f2c2d09, `go/ops.go` and
`go/proof.go`), driven by a `ProofSpec`. The doors `verify_membership` and `verify_non_membership` use our
spec and are stricter than ICS-23 where it is loose:

- the asked key is always compared, also with the key that an absence proof names;
- every step is exactly (prefix 16, suffix 32) or (prefix 48, suffix 0), and its side is the bit of
  sha256(key) at that depth, so a path cannot be re-read as another one;
- neighbour paths that are equal, or one inside the other, are refused (upstream indexes past their end);
- batch and compressed proofs are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from dllm_protocol.errors import MalformedBytes, VerificationFailed
from dllm_protocol.ics23_codec import (
    ExistenceProof,
    InnerOp,
    LeafOp,
    NonExistenceProof,
    decode_commitment_proof,
)
from dllm_protocol.jmt import (
    DIGEST_BITS,
    DIGEST_BYTES,
    INTERNAL_PREFIX,
    LEAF_PREFIX,
    PLACEHOLDER,
    bit_at,
    key_position,
)
from dllm_protocol.protobuf import delimited

SHA256 = 1
NO_PREFIX = 0
DEFAULT_MAX_DEPTH = 128

_HASH_NAMES = {1: "sha256", 2: "sha512", 4: "ripemd160", 6: "sha512_256", 7: "blake2b", 8: "blake2s"}
_BITCOIN = 5
_VARINT_LENGTH = 1
_FIXED_LENGTHS: dict[int, tuple[int, bool]] = {3: (4, True), 4: (4, False), 5: (8, True), 6: (8, False)}
_REQUIRED_LENGTHS = {7: 32, 8: 64}


class ProofInvalid(VerificationFailed):
    """A state proof does not show what it was asked to show."""

    code = "E_PROOF"


@dataclass(frozen=True, slots=True)
class InnerSpec:
    """What inner nodes look like: child order, sizes in bytes, the hash of an empty child."""

    child_order: tuple[int, ...]
    child_size: int
    min_prefix_length: int
    max_prefix_length: int
    empty_child: bytes
    hash: int


@dataclass(frozen=True, slots=True)
class ProofSpec:
    """What proofs of one kind of tree must look like; depths count inner steps, 0 = the default limit."""

    leaf: LeafOp
    inner: InnerSpec
    max_depth: int = 0
    min_depth: int = 0
    prehash_key_before_comparison: bool = False
    extra_check: Callable[[LeafOp | InnerOp, int], None] | None = None


JMT_SPEC = ProofSpec(
    leaf=LeafOp(hash=SHA256, prehash_key=SHA256, prehash_value=SHA256, length=NO_PREFIX, prefix=LEAF_PREFIX),
    inner=InnerSpec(
        child_order=(0, 1),
        child_size=DIGEST_BYTES,
        min_prefix_length=len(INTERNAL_PREFIX),
        max_prefix_length=len(INTERNAL_PREFIX),
        empty_child=PLACEHOLDER,
        hash=SHA256,
    ),
    max_depth=DIGEST_BITS,
    prehash_key_before_comparison=True,
)
"""Our tree. Upstream's max_depth of 64 would make two keys with 64 equal leading bits unprovable."""


def verify_membership(proof_bytes: bytes, root: bytes, key: bytes, value: bytes) -> None:
    """Shows that `value` stands under `key` in the state tree with this 32-byte `root`.

    Raises:
        ProofInvalid: the proof does not show it; the message names what disagreed.
    """
    proof = _decoded(proof_bytes)
    if not isinstance(proof, ExistenceProof):
        raise ProofInvalid(f"asked for a proof that {key!r} is present, got a proof that it is absent")
    check_existence(proof, JMT_SPEC, root, key, value)
    _check_sides(proof)


def verify_non_membership(proof_bytes: bytes, root: bytes, key: bytes) -> None:
    """Shows that nothing stands under `key` in the state tree with this 32-byte `root`.

    Raises:
        ProofInvalid: the proof does not show it; the message names what disagreed.
    """
    proof = _decoded(proof_bytes)
    if not isinstance(proof, NonExistenceProof):
        raise ProofInvalid(f"asked for a proof that {key!r} is absent, got a proof that it is present")
    if proof.key != key:
        raise ProofInvalid(f"the absence proof is for key {proof.key!r}, asked was {key!r}")
    check_non_existence(proof, JMT_SPEC, root, key)
    for neighbour in (proof.left, proof.right):
        if neighbour is not None:
            _check_sides(neighbour)


def check_existence(proof: ExistenceProof, spec: ProofSpec, root: bytes, key: bytes, value: bytes) -> None:
    """The general presence check. Raises ProofInvalid."""
    check_against_spec(proof, spec)
    if proof.key != key:
        raise ProofInvalid(f"the proof is for key {proof.key!r}, asked was {key!r}")
    if proof.value != value:
        raise ProofInvalid(f"the proof is for value {_short(proof.value)}, claimed was {_short(value)}")
    calculated = calculate_root(proof, spec)
    if calculated != root:
        raise ProofInvalid(f"the proof leads to root {calculated.hex()}, the header has {root.hex()}")


def check_non_existence(proof: NonExistenceProof, spec: ProofSpec, root: bytes, key: bytes) -> None:
    """The general absence check: neighbours present, the key strictly between, nothing else between.

    Raises:
        ProofInvalid: one of these does not hold.
    """
    left, right = proof.left, proof.right
    if left is None and right is None:
        raise ProofInvalid(f"the absence proof for {key!r} has neither neighbour")
    asked = _comparable(spec, key)
    if left is not None:
        check_existence(left, spec, root, left.key, left.value)
        if _comparable(spec, left.key) >= asked:
            raise ProofInvalid(f"left neighbour {left.key!r} does not come before {key!r}")
    if right is not None:
        check_existence(right, spec, root, right.key, right.value)
        if _comparable(spec, right.key) <= asked:
            raise ProofInvalid(f"right neighbour {right.key!r} does not come after {key!r}")
    if left is None:
        assert right is not None
        if not is_leftmost(spec.inner, right.path):
            raise ProofInvalid(f"no left neighbour is given, yet {right.key!r} is not the first key")
    elif right is None:
        if not is_rightmost(spec.inner, left.path):
            raise ProofInvalid(f"no right neighbour is given, yet {left.key!r} is not the last key")
    elif not is_left_neighbour(spec.inner, left.path, right.path):
        raise ProofInvalid(f"{left.key!r} and {right.key!r} are not neighbours in the tree")


def check_against_spec(proof: ExistenceProof, spec: ProofSpec) -> None:
    """Every operation is one that the tree of this spec makes. Raises ProofInvalid."""
    if proof.leaf is None:
        raise ProofInvalid("the proof has no leaf operation")
    _check_inner_spec(spec.inner)
    check_leaf_op(proof.leaf, spec)
    depth, max_depth = len(proof.path), spec.max_depth or DEFAULT_MAX_DEPTH
    if depth < spec.min_depth:
        raise ProofInvalid(f"the proof has {depth} steps, at least {spec.min_depth} are needed")
    if depth > max_depth:
        raise ProofInvalid(f"the proof has {depth} steps, at most {max_depth} are allowed")
    for layer, step in enumerate(proof.path, start=1):
        _check_inner_op(step, spec, layer)


def check_leaf_op(op: LeafOp, spec: ProofSpec) -> None:
    """The leaf is hashed as the spec says. Raises ProofInvalid."""
    if spec.extra_check is not None:
        spec.extra_check(op, 0)
    want = spec.leaf
    for name in ("hash", "prehash_key", "prehash_value", "length"):
        if getattr(op, name) != getattr(want, name):
            raise ProofInvalid(
                f"leaf operation has {name} {getattr(op, name)}, the tree has {getattr(want, name)}"
            )
    if not op.prefix.startswith(want.prefix):
        raise ProofInvalid(f"leaf prefix {op.prefix!r} does not begin with {want.prefix!r}")


def calculate_root(proof: ExistenceProof, spec: ProofSpec | None = None) -> bytes:
    """The root that a proof leads to. Raises ProofInvalid when an operation cannot be applied."""
    if proof.leaf is None:
        raise ProofInvalid("the proof has no leaf operation")
    result = apply_leaf(proof.leaf, proof.key, proof.value)
    for step in proof.path:
        result = apply_inner(step, result)
        if spec is not None and len(result) > spec.inner.child_size >= DIGEST_BYTES:
            raise ProofInvalid(f"a step gives {len(result)} bytes, a child has {spec.inner.child_size}")
    return result


def apply_leaf(op: LeafOp, key: bytes, value: bytes) -> bytes:
    """The leaf's hash. Raises ProofInvalid for an empty key or value, which cannot be proved."""
    if not key:
        raise ProofInvalid("the leaf has no key")
    if not value:
        raise ProofInvalid("the leaf has no value")
    data = op.prefix + _with_length(op.length, _prehash(op.prehash_key, key))
    return do_hash(op.hash, data + _with_length(op.length, _prehash(op.prehash_value, value)))


def apply_inner(op: InnerOp, child: bytes) -> bytes:
    """The parent's hash. Raises ProofInvalid for an empty child."""
    if not child:
        raise ProofInvalid("an inner step has no child")
    return do_hash(op.hash, op.prefix + child + op.suffix)


def do_hash(operation: int, data: bytes) -> bytes:
    """Hashes by ICS-23's HashOp number. Raises ProofInvalid for an unknown one and for 0 (none), as
    upstream.
    """
    if operation == _BITCOIN:
        return hashlib.new("ripemd160", hashlib.sha256(data).digest()).digest()
    name = _HASH_NAMES.get(operation)
    if name is None:
        raise ProofInvalid(f"hash operation {operation} is not supported")
    return hashlib.new(name, data).digest()


def is_leftmost(inner: InnerSpec, path: tuple[InnerOp, ...]) -> bool:
    """No key stands to the left of this path."""
    return all(_branch(inner, step) == 0 or left_branches_empty(inner, step) for step in path)


def is_rightmost(inner: InnerSpec, path: tuple[InnerOp, ...]) -> bool:
    """No key stands to the right of this path."""
    last = len(inner.child_order) - 1
    return all(_branch(inner, step) == last or right_branches_empty(inner, step) for step in path)


def is_left_neighbour(inner: InnerSpec, left: tuple[InnerOp, ...], right: tuple[InnerOp, ...]) -> bool:
    """No key stands between the two paths (leaf first, root last)."""
    common = 0
    for of_left, of_right in zip(reversed(left), reversed(right), strict=False):
        if (of_left.prefix, of_left.suffix) != (of_right.prefix, of_right.suffix):
            break
        common += 1
    if common == len(left) or common == len(right):
        return False
    at_left, at_right = len(left) - 1 - common, len(right) - 1 - common
    left_branch, right_branch = _branch(inner, left[at_left]), _branch(inner, right[at_right])
    if left_branch is None or right_branch is None or right_branch != left_branch + 1:
        return False
    return is_rightmost(inner, left[:at_left]) and is_leftmost(inner, right[:at_right])


def left_branches_empty(inner: InnerSpec, op: InnerOp) -> bool:
    """The step has siblings to its left and all of them are the empty child."""
    branch = _branch(inner, op)
    if not branch:
        return False
    start = len(op.prefix) - branch * inner.child_size
    return start >= 0 and op.prefix[start:] == inner.empty_child * branch


def right_branches_empty(inner: InnerSpec, op: InnerOp) -> bool:
    """The step has siblings to its right and all of them are the empty child."""
    branch = _branch(inner, op)
    if branch is None:
        return False
    count = len(inner.child_order) - 1 - branch
    return count > 0 and op.suffix == inner.empty_child * count


def _decoded(proof_bytes: bytes) -> ExistenceProof | NonExistenceProof:
    try:
        return decode_commitment_proof(proof_bytes)
    except MalformedBytes as error:
        raise ProofInvalid(f"the proof cannot be read: {error.message}") from error


def _check_sides(proof: ExistenceProof) -> None:
    """Exact shapes of our tree, and the side of every step by the key's own bits; ICS-23 checks neither."""
    assert proof.leaf is not None
    if proof.leaf.prefix != LEAF_PREFIX:
        raise ProofInvalid(f"leaf prefix is {proof.leaf.prefix!r}, it must be {LEAF_PREFIX!r}")
    position = key_position(proof.key)
    for index, step in enumerate(proof.path):
        depth = len(proof.path) - 1 - index
        shape = len(step.prefix), len(step.suffix)
        if shape == (len(INTERNAL_PREFIX), DIGEST_BYTES):
            side = 0
        elif shape == (len(INTERNAL_PREFIX) + DIGEST_BYTES, 0):
            side = 1
        else:
            raise ProofInvalid(
                f"step at depth {depth} has prefix and suffix of {shape} bytes, never made by the tree"
            )
        if not step.prefix.startswith(INTERNAL_PREFIX):
            raise ProofInvalid(f"step at depth {depth} does not begin with {INTERNAL_PREFIX!r}")
        if side != bit_at(position, depth):
            raise ProofInvalid(
                f"step at depth {depth} goes to side {side}, the key's bit is {bit_at(position, depth)}"
            )


def _check_inner_spec(inner: InnerSpec) -> None:
    if inner.child_size < 1 or not inner.min_prefix_length <= inner.max_prefix_length:
        raise ProofInvalid("the proof spec makes no sense: child size or prefix lengths")
    if inner.max_prefix_length >= inner.min_prefix_length + inner.child_size:
        raise ProofInvalid("the proof spec is ambiguous: a prefix could hide a child")


def _check_inner_op(op: InnerOp, spec: ProofSpec, layer: int) -> None:
    inner = spec.inner
    if op.hash != inner.hash:
        raise ProofInvalid(f"inner step {layer} has hash operation {op.hash}, the tree has {inner.hash}")
    if spec.extra_check is not None:
        spec.extra_check(op, layer)
    if op.prefix.startswith(spec.leaf.prefix):
        raise ProofInvalid(f"inner step {layer} begins like a leaf: {op.prefix[:16]!r}")
    longest = inner.max_prefix_length + (len(inner.child_order) - 1) * inner.child_size
    if not inner.min_prefix_length <= len(op.prefix) <= longest:
        raise ProofInvalid(
            f"inner step {layer} has a prefix of {len(op.prefix)} bytes, "
            f"allowed are {inner.min_prefix_length} to {longest}"
        )
    if len(op.suffix) % inner.child_size:
        raise ProofInvalid(f"inner step {layer} has a suffix of {len(op.suffix)} bytes, not whole children")


def _branch(inner: InnerSpec, op: InnerOp) -> int | None:
    """Which child a step comes from, read from the sizes of what surrounds it; None when no branch fits."""
    children = len(inner.child_order)
    for branch in range(children):
        index = inner.child_order.index(branch)
        before, after = index * inner.child_size, (children - 1 - index) * inner.child_size
        fits = inner.min_prefix_length + before <= len(op.prefix) <= inner.max_prefix_length + before
        if fits and len(op.suffix) == after:
            return branch
    return None


def _comparable(spec: ProofSpec, key: bytes) -> bytes:
    return _prehash(spec.leaf.prehash_key, key) if spec.prehash_key_before_comparison else key


def _prehash(operation: int, data: bytes) -> bytes:
    return do_hash(operation, data) if operation else data


def _with_length(operation: int, data: bytes) -> bytes:
    if operation == NO_PREFIX:
        return data
    if operation == _VARINT_LENGTH:
        return delimited(data)
    if operation in _FIXED_LENGTHS:
        size, big_endian = _FIXED_LENGTHS[operation]
        return len(data).to_bytes(size, "big" if big_endian else "little") + data
    required = _REQUIRED_LENGTHS.get(operation)
    if required is None:
        raise ProofInvalid(f"length operation {operation} is not supported")
    if len(data) != required:
        raise ProofInvalid(f"length operation {operation} requires {required} bytes, there are {len(data)}")
    return data


def _short(value: bytes) -> str:
    return value.hex() if len(value) <= 24 else f"{value[:24].hex()}… ({len(value)} bytes)"
