"""ICS-23: other implementations' vectors, and how a hostile prover would bend a proof of our tree."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dllm_protocol import ics23
from dllm_protocol.errors import MalformedBytes, VerificationFailed
from dllm_protocol.ics23 import JMT_SPEC, InnerSpec, ProofInvalid, ProofSpec
from dllm_protocol.ics23_codec import (
    MAX_PROOF_BYTES,
    ExistenceProof,
    InnerOp,
    LeafOp,
    NonExistenceProof,
    decode_commitment_proof,
    encode_commitment_proof,
)
from dllm_protocol.jmt import root_of
from tests.dllm_protocol.foreign_specs import IAVL_SPEC, TENDERMINT_SPEC
from tests.dllm_protocol.reference_tree import reference_absence, reference_existence

SPECS = {"iavl": IAVL_SPEC, "tendermint": TENDERMINT_SPEC}
tables = pytest.mark.conformance("ics23-tables")


def _case(shared_vectors: Path, table: str, count: int, number: int) -> Any:
    """One entry of a table, which must have so many."""
    entries = json.loads((shared_vectors / "ics23" / f"{table}.json").read_text())
    listed = list(entries.values()) if isinstance(entries, dict) else entries
    assert len(listed) == count
    return listed[number]


def _b64(value: str | None) -> bytes:
    return base64.b64decode(value or "")


def _leaf(data: dict[str, Any]) -> LeafOp:
    return LeafOp(
        data.get("hash", 0),
        data.get("prehash_key", 0),
        data.get("prehash_value", 0),
        data.get("length", 0),
        _b64(data.get("prefix")),
    )


def _inner(data: dict[str, Any]) -> InnerOp:
    return InnerOp(data.get("hash", 0), _b64(data.get("prefix")), _b64(data.get("suffix")))


def _existence(data: dict[str, Any]) -> ExistenceProof:
    leaf = _leaf(data["leaf"]) if data.get("leaf") else None
    path = tuple(_inner(step) for step in data.get("path", []))
    return ExistenceProof(_b64(data.get("key")), _b64(data.get("value")), leaf, path)


def _spec(data: dict[str, Any]) -> ProofSpec:
    inner = data["inner_spec"]
    size = inner.get("child_size", 0)
    return ProofSpec(
        leaf=_leaf(data["leaf_spec"]),
        inner=InnerSpec(
            tuple(inner.get("child_order", ())),
            size,
            inner.get("min_prefix_length", 0),
            inner.get("max_prefix_length", 0),
            _b64(inner.get("empty_child")),
            inner.get("hash", 0),
        ),
        max_depth=data.get("max_depth", 0),
        min_depth=data.get("min_depth", 0),
        extra_check=IAVL_SPEC.extra_check if size == 33 else None,
    )


def _refuses(check: Callable[[], None]) -> bool:
    try:
        check()
    except ProofInvalid:
        return True
    return False


@pytest.mark.conformance("ics23-proofs")
@pytest.mark.parametrize("tree", ["iavl", "tendermint"])
@pytest.mark.parametrize("place", ["left", "middle", "right"])
@pytest.mark.parametrize("kind", ["exist", "nonexist"])
def test_foreign_proofs_are_accepted_and_no_bit_may_flip(
    shared_vectors: Path, tree: str, place: str, kind: str
) -> None:
    data = json.loads((shared_vectors / "ics23" / tree / f"{kind}_{place}.json").read_text())
    root, key, value, raw = (bytes.fromhex(data[name]) for name in ("root", "key", "value", "proof"))
    spec = SPECS[tree]

    def check(proof_bytes: bytes) -> None:
        proof = decode_commitment_proof(proof_bytes)
        if isinstance(proof, ExistenceProof):
            ics23.check_existence(proof, spec, root, key, value)
        else:
            assert proof.key == key or kind == "nonexist"
            if proof.key != key:
                raise ProofInvalid("other key")
            ics23.check_non_existence(proof, spec, root, key)

    check(raw)
    for bit in range(0, len(raw) * 8, 7):
        flipped = bytearray(raw)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises((MalformedBytes, ProofInvalid)):
            check(bytes(flipped))


@tables
@pytest.mark.parametrize("number", range(11))
def test_leaf_operations(shared_vectors: Path, number: int) -> None:
    case = _case(shared_vectors, "TestLeafOpData", 11, number)
    arguments = _leaf(case["Op"]), _b64(case.get("Key")), _b64(case.get("Value"))
    if case["IsErr"]:
        with pytest.raises(ProofInvalid):
            ics23.apply_leaf(*arguments)
    else:
        assert ics23.apply_leaf(*arguments) == _b64(case["Expected"])


@tables
@pytest.mark.parametrize("number", range(4))
def test_inner_operations(shared_vectors: Path, number: int) -> None:
    case = _case(shared_vectors, "TestInnerOpData", 4, number)
    if case["IsErr"]:
        with pytest.raises(ProofInvalid):
            ics23.apply_inner(_inner(case["Op"]), _b64(case.get("Child")))
    else:
        assert ics23.apply_inner(_inner(case["Op"]), _b64(case["Child"])) == _b64(case["Expected"])


@tables
@pytest.mark.parametrize("number", range(7))
def test_hashes(shared_vectors: Path, number: int) -> None:
    case = _case(shared_vectors, "TestDoHashData", 7, number)
    preimage = case.get("Preimage", case.get("PreImage"))
    assert ics23.do_hash(case["HashOp"], preimage.encode()).hex() == case["ExpectedHash"]


@tables
@pytest.mark.parametrize("number", range(6))
def test_calculated_roots(shared_vectors: Path, number: int) -> None:
    case = _case(shared_vectors, "TestExistenceProofData", 6, number)
    if case["IsErr"]:
        with pytest.raises(ProofInvalid):
            ics23.calculate_root(_existence(case["Proof"]))
    else:
        assert ics23.calculate_root(_existence(case["Proof"])) == _b64(case["Expected"])


@tables
@pytest.mark.parametrize("number", range(10))
def test_leaf_against_spec(shared_vectors: Path, number: int) -> None:
    case = _case(shared_vectors, "TestCheckLeafData", 10, number)
    spec = replace(TENDERMINT_SPEC, leaf=_leaf(case["Spec"]), extra_check=None)
    leaf = _leaf(case["Leaf"])
    assert _refuses(partial(ics23.check_leaf_op, leaf, spec)) is case["IsErr"]


@tables
@pytest.mark.parametrize("number", range(11))
def test_proof_against_spec(shared_vectors: Path, number: int) -> None:
    case = _case(shared_vectors, "TestCheckAgainstSpecData", 11, number)
    proof, spec = _existence(case["Proof"]), _spec(case["Spec"])
    refused = _refuses(partial(ics23.check_against_spec, proof, spec))
    assert refused is bool(case["Err"])


@tables
@pytest.mark.parametrize("number", range(8))
def test_empty_branches(shared_vectors: Path, number: int) -> None:
    case = _case(shared_vectors, "TestEmptyBranchData", 8, number)
    inner, op = _spec(case["Spec"]).inner, _inner(case["Op"])
    assert ics23.left_branches_empty(inner, op) is case["IsLeft"]
    assert ics23.right_branches_empty(inner, op) is case["IsRight"]


STATE = {f"account/{n:040x}".encode(): f"balance {n}".encode() for n in range(60)}
ROOT = root_of(STATE)
KEY = b"account/" + b"0" * 39 + b"7"


def _bytes(proof: ExistenceProof | NonExistenceProof) -> bytes:
    return encode_commitment_proof(proof)


def test_every_key_of_our_tree_is_provable_and_bound() -> None:
    for key, value in STATE.items():
        raw = _bytes(reference_existence(STATE, key))
        ics23.verify_membership(raw, ROOT, key, value)
        with pytest.raises(ProofInvalid, match="claimed was"):
            ics23.verify_membership(raw, ROOT, key, value + b"0")
        with pytest.raises(ProofInvalid, match="asked was"):
            ics23.verify_membership(raw, ROOT, key + b"0", value)
        with pytest.raises(ProofInvalid, match="the header has"):
            ics23.verify_membership(raw, bytes(32), key, value)
        with pytest.raises(ProofInvalid, match="is absent"):
            ics23.verify_non_membership(raw, ROOT, key)


def test_absence_is_provable_everywhere_and_bound_to_the_asked_key() -> None:
    for number in range(200):
        key = f"missing/{number}".encode()
        raw = _bytes(reference_absence(STATE, key))
        ics23.verify_non_membership(raw, ROOT, key)
        with pytest.raises(ProofInvalid, match="asked was"):
            ics23.verify_non_membership(raw, ROOT, key + b"x")
        with pytest.raises(ProofInvalid, match="is absent"):
            ics23.verify_membership(raw, ROOT, key, b"1")


def test_absence_of_a_present_key_is_refused() -> None:
    without = {key: value for key, value in STATE.items() if key != KEY}
    honest_elsewhere = reference_absence(without, KEY)
    with pytest.raises(ProofInvalid, match="the header has"):
        ics23.verify_non_membership(_bytes(honest_elsewhere), ROOT, KEY)
    around = NonExistenceProof(
        KEY,
        reference_existence(STATE, honest_elsewhere.left.key) if honest_elsewhere.left else None,
        reference_existence(STATE, honest_elsewhere.right.key) if honest_elsewhere.right else None,
    )
    with pytest.raises(ProofInvalid, match="not neighbours"):
        ics23.verify_non_membership(_bytes(around), ROOT, KEY)
    itself = reference_existence(STATE, KEY)
    with pytest.raises(ProofInvalid, match="does not come"):
        ics23.verify_non_membership(_bytes(NonExistenceProof(KEY, itself, itself)), ROOT, KEY)


def test_one_sided_absence_needs_the_end_of_the_tree() -> None:
    proof = next(
        found
        for found in (reference_absence(STATE, f"missing/{n}".encode()) for n in range(50))
        if found.left and found.right
    )
    with pytest.raises(ProofInvalid, match="not the last"):
        ics23.verify_non_membership(_bytes(replace(proof, right=None)), ROOT, proof.key)
    with pytest.raises(ProofInvalid, match="not the first"):
        ics23.verify_non_membership(_bytes(replace(proof, left=None)), ROOT, proof.key)
    with pytest.raises(ProofInvalid, match="neither"):
        ics23.verify_non_membership(_bytes(NonExistenceProof(proof.key)), ROOT, proof.key)


def test_equal_or_nested_neighbour_paths_are_not_neighbours() -> None:
    step = InnerOp(1, b"JMT::IntrnalNode", bytes(32))
    assert not ics23.is_left_neighbour(JMT_SPEC.inner, (step,), (step,))
    assert not ics23.is_left_neighbour(JMT_SPEC.inner, (step, step), (step,))
    assert not ics23.is_left_neighbour(JMT_SPEC.inner, (), (step,))


def test_a_leaf_cannot_pass_as_an_inner_step() -> None:
    proof = reference_existence(STATE, KEY)
    disguised = InnerOp(1, b"JMT::LeafNode" + bytes(32), b"")
    forged = replace(proof, path=(disguised, *proof.path))
    with pytest.raises(ProofInvalid, match="begins like a leaf"):
        ics23.verify_membership(_bytes(forged), ROOT, KEY, proof.value)


def test_steps_go_to_the_side_that_the_key_says() -> None:
    leaf = JMT_SPEC.leaf
    proof = ExistenceProof(KEY, b"1", leaf, (InnerOp(1, b"JMT::IntrnalNode", bytes(32)),))
    mirrored = replace(proof, path=(InnerOp(1, b"JMT::IntrnalNode" + bytes(32), b""),))
    refused = 0
    for candidate in (proof, mirrored):
        root = ics23.calculate_root(candidate)
        try:
            ics23.verify_membership(_bytes(candidate), root, KEY, b"1")
        except ProofInvalid as error:
            assert "the key's bit" in error.message
            refused += 1
    assert refused == 1


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [
        (b"JMT::IntrnalNode", b""),
        (b"JMT::IntrnalNode" + bytes(32), bytes(32)),
        (b"JMT::InternalNod", bytes(32)),
    ],
)
def test_steps_of_other_shapes_are_refused_even_when_the_root_fits(prefix: bytes, suffix: bytes) -> None:
    for key in (b"a", b"b", b"c", b"d"):
        proof = ExistenceProof(key, b"1", JMT_SPEC.leaf, (InnerOp(1, prefix, suffix),))
        with pytest.raises(ProofInvalid):
            ics23.verify_membership(_bytes(proof), ics23.calculate_root(proof), key, b"1")


def test_leaf_operations_other_than_ours_are_refused() -> None:
    proof = reference_existence(STATE, KEY)
    for leaf in (
        replace(JMT_SPEC.leaf, prefix=b"JMT::LeafNode1"),
        replace(JMT_SPEC.leaf, prehash_value=0),
        replace(JMT_SPEC.leaf, length=1),
        None,
    ):
        forged = replace(proof, leaf=leaf)
        root = ics23.calculate_root(forged) if leaf else ROOT
        with pytest.raises(ProofInvalid):
            ics23.verify_membership(_bytes(forged), root, KEY, proof.value)


def test_depth_is_bounded_at_256() -> None:
    step = InnerOp(1, b"JMT::IntrnalNode", bytes(32))
    proof = ExistenceProof(KEY, b"1", JMT_SPEC.leaf, (step,) * 257)
    with pytest.raises(ProofInvalid, match="at most 256"):
        ics23.verify_membership(_bytes(proof), ROOT, KEY, b"1")


def test_batch_compressed_long_and_odd_bytes_are_refused() -> None:
    good = _bytes(reference_existence(STATE, KEY))
    for bad in (b"\x1a\x00", b"\x22\x00", b"", good + good, good + b"\x08\x01", bytes(MAX_PROOF_BYTES + 1)):
        with pytest.raises(MalformedBytes):
            decode_commitment_proof(bad)
        with pytest.raises(ProofInvalid, match="cannot be read"):
            ics23.verify_membership(bad, ROOT, KEY, STATE[KEY])


def test_random_garbage_never_escapes_the_error_tree() -> None:
    rng = random.Random(23)
    good = _bytes(reference_absence(STATE, b"missing"))
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        del data[rng.randint(len(data) // 2, len(data)) :]
        if bytes(data) == good:
            continue
        with pytest.raises(VerificationFailed):
            ics23.verify_non_membership(bytes(data), ROOT, b"missing")
