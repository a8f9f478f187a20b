"""One verification step: from a header that we trust to one that we are shown.

Source: CometBFT v0.38 light/verifier.go, in its order; where Go and Rust differ the stricter rule stands:
the trusted *next* set is asked for the one third (it is bound by the trusted header), the supplied next set must
match its hash, and an adjacent header must name the trusted one as its predecessor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from dllm_protocol.block import LightBlock
from dllm_protocol.block_errors import InvalidBlock
from dllm_protocol.header import Header
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import ValidatorSet
from dllm_protocol.verification.options import VerificationOptions
from dllm_protocol.verification.predicates import (
    Reason,
    Rule,
    has_announced_validators,
    has_matching_next_validators,
    has_matching_validators,
    is_earlier,
    is_higher,
    is_later,
    is_not_from_the_future,
    is_signed_by_two_thirds,
    is_sound,
    is_the_predecessor,
    is_within_trust_period,
    links_to_trusted,
)
from dllm_protocol.verification.voting_power import Tally, tally_by_address


@dataclass(frozen=True, slots=True)
class TrustedState:
    """A header that we believe, with the set that signs the next one."""

    header: Header
    next_validators: ValidatorSet
    """The set that one third is asked of; hashes to header.next_validators_hash unless evidence is prepared."""

    @classmethod
    def of(cls, block: LightBlock) -> TrustedState:
        """Return the trusted part of a light block."""
        return cls(block.header, block.next_validators)

    @classmethod
    def as_nodes_judge(cls, block: LightBlock) -> TrustedState:
        """Return what a full node goes by when it judges evidence: one third of the block's *own* validators.

        Where the set changes at the next height this differs from what a light client goes by.
        """
        return cls(block.header, block.validators)


@dataclass(frozen=True, slots=True)
class Success:
    """The header may be believed."""


@dataclass(frozen=True, slots=True)
class NotEnoughTrust:
    """Too little of the trusted power signed; a header in between may help."""

    tally: Tally


@dataclass(frozen=True, slots=True)
class Invalid:
    """The header must not be believed."""

    reason: Reason


Verdict: TypeAlias = Success | NotEnoughTrust | Invalid


def verify(
    untrusted: LightBlock,
    trusted: TrustedState,
    options: VerificationOptions,
    now: Timestamp,
) -> Verdict:
    """Judge a header above the trusted one.

    Args:
        untrusted: what a node showed us.
        trusted: what we believe.
        options: chain id, trusting period, drift, trust level.
        now: the time here.

    Returns:
        Success, NotEnoughTrust (only for headers further ahead than the next) or Invalid.
    """
    above = untrusted.header
    below = trusted.header
    reason = (
        is_within_trust_period(below, options.trusting_period_ns, now)
        or is_sound(untrusted, options.chain_id)
        or is_higher(above, below)
        or is_later(above, below)
        or is_not_from_the_future(above, options.clock_drift_ns, now)
        or has_matching_validators(untrusted)
        or has_matching_next_validators(untrusted)
    )
    if reason is not None:
        return Invalid(reason)
    if above.height == below.height + 1:
        reason = has_announced_validators(above, below)
        if options.link_required:
            reason = reason or links_to_trusted(above, below)
    else:
        commit = untrusted.signed_header.commit
        try:
            tally = tally_by_address(options.chain_id, trusted.next_validators, commit, options.trust_level)
        except InvalidBlock as error:
            return Invalid(Reason(Rule.COMMIT_SOUND, error.message))
        if not tally.is_enough:
            return NotEnoughTrust(tally)
    # Last, because the new set may have been made huge on purpose.
    reason = reason or is_signed_by_two_thirds(untrusted, options.chain_id)
    return Success() if reason is None else Invalid(reason)


def verify_root(block: LightBlock, options: VerificationOptions, now: Timestamp) -> Verdict:
    """Judge the block of a trust root: its hash is trusted already, its own validators must have signed it."""
    reason = is_within_trust_period(block.header, options.trusting_period_ns, now)
    return verify_shown(block, options.chain_id) if reason is None else Invalid(reason)


def verify_shown(block: LightBlock, chain_id: str) -> Verdict:
    """Judge what a node adds to a header that is believed already: its commit and its validator sets."""
    reason = (
        is_sound(block, chain_id)
        or has_matching_validators(block)
        or has_matching_next_validators(block)
        or is_signed_by_two_thirds(block, chain_id)
    )
    return Success() if reason is None else Invalid(reason)


def verify_backwards(untrusted: Header, trusted: Header, chain_id: str) -> Verdict:
    """Judge the header right below a trusted one by the hash chain: no signatures, no expiry."""
    try:
        untrusted.validate_basic()
    except InvalidBlock as error:
        return Invalid(Reason(Rule.SOUND_HEADER, error.message))
    if untrusted.chain_id != chain_id:
        return Invalid(
            Reason(Rule.SOUND_HEADER, f"header chain id: claimed {untrusted.chain_id}, found {chain_id}")
        )
    reason = is_earlier(untrusted, trusted) or is_the_predecessor(untrusted, trusted)
    return Success() if reason is None else Invalid(reason)
