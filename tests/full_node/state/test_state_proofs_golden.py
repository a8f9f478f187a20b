"""Recorded proofs of our tree: accepted, and refused once anything in them is bent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dllm_protocol.ics23 import ProofInvalid, verify_membership, verify_non_membership
from tests.vectors.record_proofs import FILE, recorded

RECORDED: dict[str, list[dict[str, Any]]] = json.loads(FILE.read_text("utf-8"))
pytestmark = pytest.mark.conformance("own-golden-vectors")


def check(case: dict[str, Any]) -> None:
    """What a light node does with it."""
    root, key, proof = (bytes.fromhex(case[name]) for name in ("root", "key", "proof"))
    if case["value"] is None:
        verify_non_membership(proof, root, key)
    else:
        verify_membership(proof, root, key, bytes.fromhex(case["value"]))


@pytest.mark.parametrize("case", RECORDED["accepted"], ids=lambda case: case["name"])
def test_a_recorded_proof_is_accepted(case: dict[str, Any]) -> None:
    check(case)


@pytest.mark.parametrize("case", RECORDED["refused"], ids=lambda case: case["name"])
def test_a_bent_proof_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(ProofInvalid):
        check(case)


def test_the_store_still_gives_these_proofs() -> None:
    assert recorded() == RECORDED
