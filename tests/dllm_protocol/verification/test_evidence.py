"""Judging evidence: what a full node takes, and each reason why it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.commit import BlockIDFlag
from dllm_protocol.evidence import DuplicateVoteEvidence, Evidence
from dllm_protocol.light_attack import LightClientAttackEvidence, evidence_of_attack
from dllm_protocol.validator_set import Validator
from dllm_protocol.verification.evidence import EvidenceAge, InvalidEvidence, verify_evidence
from tests.light_node.attacks import AGE, HonestHistory, amnesia_fork, equivocation_fork, lunatic_fork
from tests.light_node.signed_chain import SignedChain, signer
from tests.vectors.record_consensus import made_chain, made_evidence


@pytest.fixture
def chain() -> SignedChain:
    """Ten blocks by four validators."""
    made = SignedChain(("a", "b", "c", "d"))
    made.grow(10)
    return made


def lunatic(chain: SignedChain, signing: tuple[str, ...] | None = None) -> LightClientAttackEvidence:
    fork = lunatic_fork(chain, 8, 3, signing)
    return evidence_of_attack(fork.light_block(10), chain.light_block(10), chain.light_block(7))


def test_each_kind_of_attack_is_accepted(chain: SignedChain) -> None:
    verify_evidence(lunatic(chain), HonestHistory(chain), AGE)
    for fork in (equivocation_fork(chain, 10), amnesia_fork(chain, 10)):
        evidence = evidence_of_attack(fork.light_block(10), chain.light_block(10), chain.light_block(1))
        evidence.validate_basic()
        verify_evidence(evidence, HonestHistory(chain), AGE)


def test_a_forward_lunatic_is_judged_by_the_latest_block(chain: SignedChain) -> None:
    fork = chain.forked(8)
    fork.add(lie={"app_hash": b"\x07" * 32})
    # Made quicker than the chain: a higher block that is not younger than the chain's newest.
    for _ in range(4):
        fork.add(lie={"time": chain.blocks[10].header.time.add_ms(-1)})
    evidence = evidence_of_attack(fork.light_block(12), chain.light_block(10), chain.light_block(7))
    verify_evidence(evidence, HonestHistory(chain), AGE)
    late = lunatic_fork(chain, 8, 5)
    evidence = evidence_of_attack(late.light_block(12), chain.light_block(10), chain.light_block(7))
    with pytest.raises(InvalidEvidence, match=r"latest block time \(.*:09\.009Z\) is before .*:11"):
        verify_evidence(evidence, HonestHistory(chain), AGE)


def refused(chain: SignedChain, evidence: Evidence, words: str, age: EvidenceAge = AGE) -> None:
    with pytest.raises(InvalidEvidence, match=words):
        verify_evidence(evidence, HonestHistory(chain), age)


def test_time_and_age(chain: SignedChain) -> None:
    evidence = lunatic(chain)
    refused(chain, replace(evidence, common_height=11), "don't have header #11")
    later = replace(evidence, timestamp=evidence.timestamp.add_ms(1))
    refused(chain, later, r"different time to the block .*06\.007Z != .*06\.006Z")
    verify_evidence(evidence, HonestHistory(chain), EvidenceAge(3, 0))
    verify_evidence(evidence, HonestHistory(chain), EvidenceAge(0, 10**12))
    refused(chain, evidence, "too old; min height is 8", EvidenceAge(2, 0))


def test_power_of_the_common_and_of_the_conflicting_set(chain: SignedChain) -> None:
    strangers = chain.forked(8)
    strangers.add(next_names=("a", "x", "y", "z"), lie={"app_hash": b"\x07" * 32})
    strangers.grow(2)
    evidence = evidence_of_attack(strangers.light_block(10), chain.light_block(10), chain.light_block(7))
    refused(chain, evidence, "skipping verification .* got 10, needed more than 13")
    refused(chain, lunatic(chain, ("a", "b")), "conflicting block: .* got 20, needed more than 26")


def test_every_signature_counts(chain: SignedChain) -> None:
    evidence = lunatic(chain)
    block = evidence.conflicting_block
    commit = block.signed_header.commit
    entries = list(commit.signatures)
    entries[3] = replace(entries[3], signature=bytes(64))
    forged = replace(commit, signatures=tuple(entries))
    changed = replace(block, signed_header=replace(block.signed_header, commit=forged))
    refused(
        chain,
        replace(evidence, conflicting_block=changed),
        "wrong signature: 30 of 40 .* 1 signatures refused",
    )
    twice = replace(commit, signatures=(*commit.signatures[:3], commit.signatures[0]))
    changed = replace(block, signed_header=replace(block.signed_header, commit=twice))
    refused(chain, replace(evidence, conflicting_block=changed), "signs twice, at 0 and at 3")
    nobody = [replace(one, flag=BlockIDFlag.NIL) for one in commit.signatures]
    changed = replace(
        block, signed_header=replace(block.signed_header, commit=replace(commit, signatures=tuple(nobody)))
    )
    refused(chain, replace(evidence, conflicting_block=changed), "got 0, needed more than 13")


def test_total_power_header_and_derivation(chain: SignedChain) -> None:
    evidence = lunatic(chain)
    refused(chain, replace(evidence, total_voting_power=41), r"does not match \(41 != 40\)")
    same = evidence_of_attack(chain.light_block(10), chain.light_block(10), chain.light_block(10))
    refused(chain, same, "trusted header hash matches .* " + chain.blocks[10].hash().hex().upper())
    fork = lunatic_fork(chain, 10)
    at_once = evidence_of_attack(fork.light_block(10), chain.light_block(10), chain.light_block(10))
    refused(chain, at_once, "expected the conflicting block to be correctly derived")


def test_the_list_of_the_guilty_is_ours(chain: SignedChain) -> None:
    evidence = lunatic(chain)
    named = evidence.byzantine_validators
    refused(chain, replace(evidence, byzantine_validators=named[1:]), "expected 4 byzantine .* got 3")
    refused(
        chain, replace(evidence, byzantine_validators=named[::-1]), "unexpected byzantine validator address"
    )
    stronger = (replace(named[0], voting_power=11), *named[1:])
    refused(chain, replace(evidence, byzantine_validators=stronger), "expected 10, got 11")
    swapped = (replace(named[0]), *named[1:])
    object.__setattr__(swapped[0], "public_key", signer("innocent").public_key)
    refused(chain, replace(evidence, byzantine_validators=swapped), "does not match pubkey address")
    fork = amnesia_fork(chain, 10)
    nobody = evidence_of_attack(fork.light_block(10), chain.light_block(10), chain.light_block(1))
    refused(
        chain, replace(nobody, byzantine_validators=named), "expected nil validators from an amnesia .* 4"
    )


def duplicate() -> tuple[SignedChain, DuplicateVoteEvidence]:
    chain = made_chain()
    return chain, made_evidence(chain)


def test_two_votes_are_judged() -> None:
    chain, evidence = duplicate()
    verify_evidence(evidence, HonestHistory(chain), AGE)
    vote = evidence.vote_b
    stranger = Validator(signer("z").public_key, 1).address
    for changed, words in (
        (
            replace(evidence, vote_a=replace(evidence.vote_a, validator_address=stranger)),
            "was not a validator",
        ),
        (replace(evidence, vote_b=replace(vote, round=1)), "h/r/s does not match: 4/0/2 vs 4/1/2"),
        (replace(evidence, vote_b=replace(vote, validator_address=stranger)), "addresses do not match"),
        (replace(evidence, vote_b=evidence.vote_a), "block IDs are the same"),
        (replace(evidence, validator_power=11), r"validator power .* \(11 != 10\)"),
        (replace(evidence, total_voting_power=41), r"\(41 != 40\)"),
        (replace(evidence, vote_b=replace(vote, signature=bytes(64))), "verifying VoteB: invalid signature"),
    ):
        refused(chain, changed, words)
