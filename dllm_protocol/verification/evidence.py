"""Judging evidence of misbehaviour, as a full node does before it takes it (CometBFT v0.38, evidence/verify.go).

All signatures are checked, not just enough of them: whom they name will be punished.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dllm_protocol.block_errors import InvalidBlock, shown
from dllm_protocol.evidence import DuplicateVoteEvidence, Evidence
from dllm_protocol.light_attack import (
    AttackKind,
    LightClientAttackEvidence,
    attack_kind,
    byzantine_validators,
    is_lunatic,
)
from dllm_protocol.light_block import SignedHeader
from dllm_protocol.signing import verify
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import ValidatorSet, address_of
from dllm_protocol.verification.trust_level import ONE_THIRD
from dllm_protocol.verification.voting_power import Tally, tally_by_address, tally_by_index


class InvalidEvidence(InvalidBlock):
    """Evidence that proves nothing; the words are those of a CometBFT node."""

    code = "E_EVIDENCE_INVALID"


class ChainHistory(Protocol):
    """What the judge knows of the chain."""

    @property
    def chain_id(self) -> str: ...

    @property
    def latest_height(self) -> int: ...

    def signed_header(self, height: int) -> SignedHeader | None:
        """The header at a height with its commit, or None where it is not kept or not made yet."""
        ...

    def validators(self, height: int) -> ValidatorSet | None:
        """The set that signs a height, or None where it is not kept."""
        ...


@dataclass(frozen=True, slots=True)
class EvidenceAge:
    """How long evidence counts; it is too old only when it is beyond both."""

    blocks_max: int
    duration_ns_max: int


def verify_evidence(evidence: Evidence, history: ChainHistory, age: EvidenceAge) -> None:
    """Judge evidence of either kind against the chain; `validate_basic` has been called.

    Raises:
        InvalidEvidence: why it does not count.
    """
    common = history.signed_header(evidence.height)
    if common is None:
        raise InvalidEvidence(f"don't have header #{evidence.height}")
    if evidence.timestamp != common.header.time:
        raise InvalidEvidence(
            "evidence has a different time to the block it is associated with "
            f"({evidence.timestamp} != {common.header.time})"
        )
    _check_age(evidence, history, age)
    validators = history.validators(evidence.height)
    if validators is None:
        raise InvalidEvidence(f"don't have validators at height #{evidence.height}")
    if isinstance(evidence, DuplicateVoteEvidence):
        verify_duplicate_vote(evidence, history.chain_id, validators)
        return
    trusted = _trusted_header(evidence, history, common)
    verify_light_client_attack(evidence, common, trusted, validators)


def _check_age(evidence: Evidence, history: ChainHistory, age: EvidenceAge) -> None:
    latest = history.signed_header(history.latest_height)
    if latest is None:
        raise InvalidEvidence(f"don't have header #{history.latest_height}")
    age_ns = latest.header.time.to_ns() - evidence.timestamp.to_ns()
    age_blocks = history.latest_height - evidence.height
    if age_ns > age.duration_ns_max and age_blocks > age.blocks_max:
        oldest = Timestamp.from_ns(latest.header.time.to_ns() - age.duration_ns_max)
        raise InvalidEvidence(
            f"evidence from height {evidence.height} (created at: {evidence.timestamp}) is too old; min height is "
            f"{history.latest_height - age.blocks_max} and evidence can not be older than {oldest}"
        )


def _trusted_header(
    evidence: LightClientAttackEvidence, history: ChainHistory, common: SignedHeader
) -> SignedHeader:
    """The header at the conflicting height; the latest one where the chain is shorter (forward lunatic)."""
    conflicting = evidence.conflicting_block.header
    if evidence.common_height == conflicting.height:
        return common
    found = history.signed_header(conflicting.height)
    if found is not None:
        return found
    latest = history.signed_header(history.latest_height)
    if latest is None:
        raise InvalidEvidence(f"don't have header at height #{history.latest_height}")
    if latest.header.time < conflicting.time:
        raise InvalidEvidence(
            f"latest block time ({latest.header.time}) is before conflicting block time ({conflicting.time})"
        )
    return latest


def verify_duplicate_vote(evidence: DuplicateVoteEvidence, chain_id: str, validators: ValidatorSet) -> None:
    """Judge two votes of one validator against the set of their height.

    Raises:
        InvalidEvidence: naming both values.
    """
    one, other = evidence.vote_a, evidence.vote_b
    voter = validators.by_address(one.validator_address)
    if voter is None:
        raise InvalidEvidence(
            f"address {shown(one.validator_address)} was not a validator at height {one.height}"
        )
    if (one.height, one.round, one.type) != (other.height, other.round, other.type):
        raise InvalidEvidence(
            f"h/r/s does not match: {one.height}/{one.round}/{one.type} vs {other.height}/{other.round}/{other.type}"
        )
    if one.validator_address != other.validator_address:
        raise InvalidEvidence(
            f"validator addresses do not match: {shown(one.validator_address)} vs {shown(other.validator_address)}"
        )
    if one.block_id == other.block_id:
        raise InvalidEvidence(
            f"block IDs are the same ({shown(one.block_id.hash)}) - not a real duplicate vote"
        )
    if evidence.validator_power != voter.voting_power:
        raise InvalidEvidence(
            "validator power from evidence and our validator set does not match "
            f"({evidence.validator_power} != {voter.voting_power})"
        )
    _check_total(evidence.total_voting_power, validators)
    for name, vote in (("VoteA", one), ("VoteB", other)):
        if not verify(voter.public_key, vote.sign_bytes(chain_id), vote.signature):
            raise InvalidEvidence(f"verifying {name}: invalid signature")


def verify_light_client_attack(
    evidence: LightClientAttackEvidence,
    common: SignedHeader,
    trusted: SignedHeader,
    common_validators: ValidatorSet,
) -> None:
    """Judge an attack against the headers of the chain.

    Args:
        evidence: what somebody claims.
        common: our header at the common height.
        trusted: our header at the conflicting height; our latest one where the chain is shorter.
        common_validators: our set at the common height.

    Raises:
        InvalidEvidence: naming both values.
    """
    block = evidence.conflicting_block
    chain_id = trusted.header.chain_id
    if common.header.height != block.height:
        _check_third_of_common(evidence, common_validators, chain_id)
    elif is_lunatic(block.header, trusted.header):
        raise InvalidEvidence(
            "common height is the same as conflicting block height so expected the conflicting"
            " block to be correctly derived yet it wasn't"
        )
    _check_two_thirds_of_conflicting(evidence, chain_id)
    _check_total(evidence.total_voting_power, common_validators)
    if block.height > trusted.header.height and block.header.time > trusted.header.time:
        raise InvalidEvidence(
            "conflicting block doesn't violate monotonically increasing time "
            f"({block.header.time} is after {trusted.header.time})"
        )
    if trusted.header.hash() == block.header.hash():
        raise InvalidEvidence(
            f"trusted header hash matches the evidence's conflicting header hash: {shown(trusted.header.hash())}"
        )
    _check_named(evidence, common_validators, trusted)


def _check_third_of_common(
    evidence: LightClientAttackEvidence, common_validators: ValidatorSet, chain_id: str
) -> None:
    commit = evidence.conflicting_block.signed_header.commit
    try:
        tally = tally_by_address(chain_id, common_validators, commit, ONE_THIRD, stop_early=False)
    except InvalidBlock as error:
        raise InvalidEvidence(
            f"skipping verification of conflicting block failed: {error.message}"
        ) from error
    _check_tally("skipping verification of conflicting block failed", tally)


def _check_two_thirds_of_conflicting(evidence: LightClientAttackEvidence, chain_id: str) -> None:
    block = evidence.conflicting_block
    try:
        tally = tally_by_index(chain_id, block.validators, block.signed_header.commit, stop_early=False)
    except InvalidBlock as error:
        raise InvalidEvidence(f"invalid commit from conflicting block: {error.message}") from error
    _check_tally("invalid commit from conflicting block", tally)


def _check_tally(what: str, tally: Tally) -> None:
    # Elsewhere a refused signature only lowers the tally. Here each one accuses somebody.
    if tally.refused:
        raise InvalidEvidence(f"{what}: wrong signature: {tally}")
    if not tally.is_enough:
        raise InvalidEvidence(
            f"{what}: invalid commit -- insufficient voting power: "
            f"got {tally.signed_power}, needed more than {tally.needed_power}"
        )


def _check_total(claimed: int, validators: ValidatorSet) -> None:
    if claimed != validators.total_power:
        raise InvalidEvidence(
            "total voting power from the evidence and our validator set does not match "
            f"({claimed} != {validators.total_power})"
        )


def _check_named(
    evidence: LightClientAttackEvidence, common_validators: ValidatorSet, trusted: SignedHeader
) -> None:
    """The list is exactly ours. Each key is what will be punished, so it must be the address's own."""
    block = evidence.conflicting_block
    named = evidence.byzantine_validators
    expected = byzantine_validators(block, common_validators, trusted)
    if named and attack_kind(block.signed_header, trusted) is AttackKind.AMNESIA:
        raise InvalidEvidence(
            f"expected nil validators from an amnesia light client attack but got {len(named)}"
        )
    if len(expected) != len(named):
        raise InvalidEvidence(
            f"expected {len(expected)} byzantine validators from evidence but got {len(named)}"
        )
    for index, (ours, theirs) in enumerate(zip(expected, named, strict=True)):
        if theirs.address != ours.address:
            raise InvalidEvidence(
                "evidence contained an unexpected byzantine validator address; "
                f"expected: {shown(ours.address)}, got: {shown(theirs.address)}"
            )
        if theirs.voting_power != ours.voting_power:
            raise InvalidEvidence(
                "evidence contained unexpected byzantine validator power; "
                f"expected {ours.voting_power}, got {theirs.voting_power}"
            )
        if address_of(theirs.public_key) != theirs.address:
            raise InvalidEvidence(
                f"byzantine validator at index {index} has address {shown(theirs.address)} that does not match "
                f"pubkey address {shown(address_of(theirs.public_key))}"
            )
