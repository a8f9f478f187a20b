"""Evidence: bytes, hash, order of the votes."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from dllm_protocol import merkle
from dllm_protocol.block_errors import InvalidBlock, MalformedBlock
from dllm_protocol.comet_wire import message_field
from dllm_protocol.evidence import (
    DuplicateVoteEvidence,
    Vote,
    decode_evidence,
    encode_evidence,
    evidence_hash,
)
from dllm_protocol.signing import verify
from tests.light_node.signed_chain import CHAIN_ID, signer
from tests.vectors.record_consensus import made_chain, made_evidence


@pytest.fixture
def evidence() -> DuplicateVoteEvidence:
    """Two votes of one validator."""
    return made_evidence(made_chain())


def test_votes_are_signed_and_lead_back(evidence: DuplicateVoteEvidence) -> None:
    for vote in (evidence.vote_a, evidence.vote_b):
        assert verify(signer("a").public_key, vote.sign_bytes(CHAIN_ID), vote.signature)
        assert Vote.decode(vote.encode()) == vote
    assert decode_evidence(encode_evidence(evidence)) == evidence


def test_the_hash_covers_bare_evidence(evidence: DuplicateVoteEvidence) -> None:
    assert evidence.hash() == sha256(evidence.encode()).digest()
    assert evidence_hash([evidence]) == merkle.root([evidence.encode()])
    assert evidence_hash([]) == sha256(b"").digest()


def test_rules_of_evidence(evidence: DuplicateVoteEvidence) -> None:
    evidence.validate_basic()
    swapped = replace(evidence, vote_a=evidence.vote_b, vote_b=evidence.vote_a)
    with pytest.raises(InvalidBlock, match="rising order"):
        swapped.validate_basic()
    vote = evidence.vote_b
    for changes, words in (
        ({"type": 32}, "vote type 32"),
        ({"height": 0}, "height 0"),
        ({"round": -1}, "round -1"),
        ({"validator_index": -1}, "index -1"),
        ({"validator_address": b""}, "0 bytes, not 20"),
        ({"signature": b""}, "not 1 to 64"),
    ):
        with pytest.raises(InvalidBlock, match=words):
            replace(vote, **changes).validate_basic()


def test_unknown_kinds_are_refused(evidence: DuplicateVoteEvidence) -> None:
    for data in (b"", message_field(2, evidence.encode()), message_field(3, b"")):
        with pytest.raises(MalformedBlock):
            decode_evidence(data)
