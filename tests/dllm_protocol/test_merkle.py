"""RFC 6962 trees: Go's vectors, a naive definition, proofs that cannot be bent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol import merkle
from dllm_protocol.block_errors import InvalidBlock

LEAVES = st.lists(st.binary(max_size=8), min_size=1, max_size=40)


def _naive_root(leaves: Sequence[bytes]) -> bytes:
    """The definition: split at the largest power of two below n."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\1" + _naive_root(leaves[:split]) + _naive_root(leaves[split:])).digest()


@pytest.mark.conformance("cometbft-go-tests")
@pytest.mark.parametrize("number", range(5))
def test_go_s_roots(shared_vectors: Path, number: int) -> None:
    table = json.loads((shared_vectors / "cometbft-go-tests" / "merkle_rfc6962.json").read_text())
    assert len(table["vectors"]) == 5
    vector = table["vectors"][number]
    assert merkle.root([bytes.fromhex(leaf) for leaf in vector["leaves_hex"]]).hex() == vector["want"]


def test_the_empty_root_is_the_hash_of_nothing() -> None:
    assert merkle.root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(LEAVES)
def test_roots_follow_the_definition(leaves: list[bytes]) -> None:
    assert merkle.root(leaves) == _naive_root(leaves)


@given(LEAVES, st.data())
def test_proofs_hold_for_their_leaf_only(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    root = merkle.root(leaves)
    proof = merkle.proof(leaves, index)
    merkle.verify(proof, root, leaves[index])
    with pytest.raises(InvalidBlock):
        merkle.verify(proof, root, leaves[index] + b"!")
    with pytest.raises(InvalidBlock):
        merkle.verify(proof, sha256(root).digest(), leaves[index])
    with pytest.raises(InvalidBlock):
        merkle.verify(replace(proof, aunts=(*proof.aunts, bytes(32))), root, leaves[index])
    if proof.aunts:
        with pytest.raises(InvalidBlock):
            merkle.verify(replace(proof, aunts=proof.aunts[:-1]), root, leaves[index])
        with pytest.raises(InvalidBlock):
            merkle.verify(replace(proof, aunts=(b"short", *proof.aunts[1:])), root, leaves[index])


@given(LEAVES)
def test_all_proofs_at_once_are_the_single_ones(leaves: list[bytes]) -> None:
    assert merkle.proofs(leaves) == [merkle.proof(leaves, index) for index in range(len(leaves))]


def test_impossible_positions_are_refused() -> None:
    proof = merkle.proof([b"a", b"b"], 1)
    root = merkle.root([b"a", b"b"])
    for changed in (replace(proof, index=2), replace(proof, index=-1), replace(proof, total=0)):
        with pytest.raises(InvalidBlock, match="leaf"):
            merkle.verify(changed, root, b"b")
    with pytest.raises(InvalidBlock, match="at most 100"):
        merkle.verify(replace(proof, aunts=(bytes(32),) * 101), root, b"b")
    with pytest.raises(IndexError):
        merkle.proof([b"a"], 1)
