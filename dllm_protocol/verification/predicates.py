"""One function for each rule of a verification step, named as the claim that it checks.

Each returns None when the claim holds, else the reason, which carries both values that disagree.
Source: CometBFT v0.38 light/verifier.go; the shape is tendermint-rs' light-client-verifier/src/predicates.rs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dllm_protocol.block import LightBlock
from dllm_protocol.block_errors import InvalidBlock, shown
from dllm_protocol.header import Header
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.verification.voting_power import Tally, tally_by_index


class Rule(StrEnum):
    """Names of the rules."""

    TRUST_NOT_EXPIRED = "trust-not-expired"
    SOUND_HEADER = "sound-header"
    HEIGHT_GROWS = "height-grows"
    TIME_GROWS = "time-grows"
    TIME_NOT_IN_FUTURE = "time-not-in-future"
    VALIDATORS_MATCH = "validators-match"
    NEXT_VALIDATORS_MATCH = "next-validators-match"
    NEXT_LINKS = "next-block-links"
    COMMIT_SOUND = "commit-sound"
    TWO_THIRDS_SIGNED = "two-thirds-signed"
    PREVIOUS_LINKS = "previous-block-links"
    TIME_FALLS = "time-falls"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a header was refused."""

    rule: Rule
    message: str
    """One sentence with both values."""

    def __str__(self) -> str:
        return self.message


def is_within_trust_period(trusted: Header, trusting_period_ns: int, now: Timestamp) -> Reason | None:
    """The trusted header is not too old to be built upon: time + period > now."""
    if trusted.time.to_ns() + trusting_period_ns > now.to_ns():
        return None
    age_s = (now.to_ns() - trusted.time.to_ns()) // 10**9
    return Reason(
        Rule.TRUST_NOT_EXPIRED,
        f"trusted header {trusted.height} of {trusted.time} is {age_s} s old at {now}, "
        f"the trusting period is {trusting_period_ns // 10**9} s",
    )


def is_sound(untrusted: LightBlock, chain_id: str) -> Reason | None:
    """Header and commit are well-formed, belong together and to this chain."""
    try:
        untrusted.signed_header.validate_basic(chain_id)
    except InvalidBlock as error:
        return Reason(Rule.SOUND_HEADER, error.message)
    return None


def is_higher(untrusted: Header, trusted: Header) -> Reason | None:
    """The height is above the trusted one."""
    if untrusted.height > trusted.height:
        return None
    return Reason(
        Rule.HEIGHT_GROWS,
        f"header height {untrusted.height} is not above the trusted height {trusted.height}",
    )


def is_later(untrusted: Header, trusted: Header) -> Reason | None:
    """The time is after the trusted one."""
    if untrusted.time > trusted.time:
        return None
    return Reason(
        Rule.TIME_GROWS,
        f"header {untrusted.height} of {untrusted.time} is not after the trusted {trusted.time}",
    )


def is_not_from_the_future(untrusted: Header, clock_drift_ns: int, now: Timestamp) -> Reason | None:
    """The time lies before now + drift."""
    if untrusted.time.to_ns() < now.to_ns() + clock_drift_ns:
        return None
    return Reason(
        Rule.TIME_NOT_IN_FUTURE,
        f"header {untrusted.height} of {untrusted.time} is from the future: it is {now} here, "
        f"{clock_drift_ns // 10**9} s of drift allowed",
    )


def has_matching_validators(untrusted: LightBlock) -> Reason | None:
    """The supplied validators are those that the header names."""
    found = untrusted.validators.hash()
    if untrusted.header.validators_hash == found:
        return None
    return Reason(
        Rule.VALIDATORS_MATCH,
        f"header {untrusted.height} names validators {shown(untrusted.header.validators_hash)}, "
        f"those supplied hash to {shown(found)}",
    )


def has_matching_next_validators(untrusted: LightBlock) -> Reason | None:
    """The supplied next validators are those that the header names."""
    found = untrusted.next_validators.hash()
    if untrusted.header.next_validators_hash == found:
        return None
    return Reason(
        Rule.NEXT_VALIDATORS_MATCH,
        f"header {untrusted.height} names next validators {shown(untrusted.header.next_validators_hash)}, "
        f"those supplied hash to {shown(found)}",
    )


def has_announced_validators(untrusted: Header, trusted: Header) -> Reason | None:
    """The next header's validators are those that the trusted header announced."""
    if untrusted.validators_hash == trusted.next_validators_hash:
        return None
    return Reason(
        Rule.NEXT_VALIDATORS_MATCH,
        f"header {untrusted.height} names validators {shown(untrusted.validators_hash)}, "
        f"header {trusted.height} announced {shown(trusted.next_validators_hash)}",
    )


def links_to_trusted(untrusted: Header, trusted: Header) -> Reason | None:
    """The next header names the trusted one as its predecessor."""
    found = trusted.hash()
    if untrusted.last_block_id.hash == found:
        return None
    return Reason(
        Rule.NEXT_LINKS,
        f"header {untrusted.height} follows block {shown(untrusted.last_block_id.hash)}, "
        f"the trusted block {trusted.height} is {shown(found)}",
    )


def is_signed_by_two_thirds(untrusted: LightBlock, chain_id: str) -> Reason | None:
    """More than two thirds of the header's own validators signed it."""
    try:
        tally: Tally = tally_by_index(chain_id, untrusted.validators, untrusted.signed_header.commit)
    except InvalidBlock as error:
        return Reason(Rule.COMMIT_SOUND, error.message)
    if tally.is_enough:
        return None
    return Reason(Rule.TWO_THIRDS_SIGNED, f"header {untrusted.height}: power {tally}")


def is_the_predecessor(untrusted: Header, trusted: Header) -> Reason | None:
    """The header is the one that the trusted header, one height above, names as its predecessor."""
    found = untrusted.hash()
    if trusted.height == untrusted.height + 1 and trusted.last_block_id.hash == found:
        return None
    return Reason(
        Rule.PREVIOUS_LINKS,
        f"trusted header {trusted.height} follows block {shown(trusted.last_block_id.hash)}, "
        f"header {untrusted.height} is {shown(found)}",
    )


def is_earlier(untrusted: Header, trusted: Header) -> Reason | None:
    """The time is before the trusted one."""
    if untrusted.time < trusted.time:
        return None
    return Reason(
        Rule.TIME_FALLS,
        f"header {untrusted.height} of {untrusted.time} is not before the trusted {trusted.time}",
    )
