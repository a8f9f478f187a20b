"""Each rule of a verification step: broken alone, it is named with both values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.block import LightBlock, SignedHeader, block_id_of
from dllm_protocol.errors import UsageRefused
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import ValidatorSet
from dllm_protocol.verification.options import VerificationOptions
from dllm_protocol.verification.predicates import Rule
from dllm_protocol.verification.trust_level import TrustLevel
from dllm_protocol.verification.verifier import (
    Invalid,
    NotEnoughTrust,
    Success,
    TrustedState,
    Verdict,
    verify,
    verify_backwards,
    verify_root,
)
from tests.light_node.signed_chain import CHAIN_ID, SignedChain, signed_commit, validator_set

OPTIONS = VerificationOptions(CHAIN_ID)


@pytest.fixture(scope="module")
def chain() -> SignedChain:
    """Nine blocks by four validators."""
    made = SignedChain(("a", "b", "c", "d"))
    made.grow(9)
    return made


@pytest.fixture
def now(chain: SignedChain) -> Timestamp:
    return chain.blocks[9].header.time.add_ms(60_000)


def _trusted(chain: SignedChain, height: int) -> TrustedState:
    return TrustedState.of(chain.light_block(height))


def _resigned(chain: SignedChain, height: int, **changes: object) -> LightBlock:
    """The height's block with another header, properly signed by its validators."""
    honest = chain.blocks[height]
    block = replace(honest, header=replace(honest.header, **changes))
    by_address = {validator_set((name,)).validators[0].address: name for name in "abcdefgh"}
    ordered = [by_address[one.address] for one in chain.set_at(height).validators]
    commit = signed_commit(CHAIN_ID, block_id_of(block), height, ordered, honest.header.time.add_ms(1000))
    return replace(chain.light_block(height), signed_header=SignedHeader(block.header, commit))


def _rule(verdict: Verdict) -> Rule:
    assert isinstance(verdict, Invalid), verdict
    return verdict.reason.rule


def test_adjacent_and_distant_headers_are_believed(chain: SignedChain, now: Timestamp) -> None:
    for height in (2, 3, 9):
        assert verify(chain.light_block(height), _trusted(chain, 1), OPTIONS, now) == Success()
    assert verify_root(chain.light_block(5), OPTIONS, now) == Success()


def test_trust_ends_exactly_at_the_period(chain: SignedChain) -> None:
    block, trusted = chain.light_block(2), _trusted(chain, 1)
    end = trusted.header.time.add_ns(OPTIONS.trusting_period_ns)
    assert verify(block, trusted, OPTIONS, end.add_ns(-1)) == Success()
    assert _rule(verify(block, trusted, OPTIONS, end)) is Rule.TRUST_NOT_EXPIRED
    assert _rule(verify_root(chain.light_block(1), OPTIONS, end)) is Rule.TRUST_NOT_EXPIRED


def test_the_future_begins_exactly_at_the_drift(chain: SignedChain) -> None:
    block, trusted = chain.light_block(9), _trusted(chain, 1)
    edge = block.header.time.add_ns(-OPTIONS.clock_drift_ns)
    assert verify(block, trusted, OPTIONS, edge.add_ns(1)) == Success()
    verdict = verify(block, trusted, OPTIONS, edge)
    assert _rule(verdict) is Rule.TIME_NOT_IN_FUTURE
    assert isinstance(verdict, Invalid)
    assert str(block.header.time) in verdict.reason.message
    assert str(edge) in verdict.reason.message


def test_height_and_time_must_grow(chain: SignedChain, now: Timestamp) -> None:
    assert _rule(verify(chain.light_block(3), _trusted(chain, 3), OPTIONS, now)) is Rule.HEIGHT_GROWS
    assert _rule(verify(chain.light_block(2), _trusted(chain, 3), OPTIONS, now)) is Rule.HEIGHT_GROWS
    early = _resigned(chain, 5, time=chain.blocks[3].header.time)
    assert _rule(verify(early, _trusted(chain, 3), OPTIONS, now)) is Rule.TIME_GROWS


def test_supplied_sets_must_be_the_header_s(chain: SignedChain, now: Timestamp) -> None:
    block, trusted = chain.light_block(5), _trusted(chain, 1)
    other = validator_set(("a", "b", "c"))
    verdict = verify(replace(block, validators=other), trusted, OPTIONS, now)
    assert _rule(verdict) is Rule.VALIDATORS_MATCH
    assert isinstance(verdict, Invalid)
    assert other.hash().hex().upper() in verdict.reason.message
    assert block.header.validators_hash.hex().upper() in verdict.reason.message
    verdict = verify(replace(block, next_validators=other), trusted, OPTIONS, now)
    assert _rule(verdict) is Rule.NEXT_VALIDATORS_MATCH


def test_an_adjacent_set_must_be_the_announced_one(chain: SignedChain, now: Timestamp) -> None:
    mine = SignedChain(("e", "f"))
    mine.grow(9)
    verdict = verify(mine.light_block(2), _trusted(chain, 1), OPTIONS, now)
    assert _rule(verdict) is Rule.NEXT_VALIDATORS_MATCH


def test_an_adjacent_header_must_name_its_predecessor(chain: SignedChain, now: Timestamp) -> None:
    stray = _resigned(chain, 4, last_block_id=block_id_of(chain.blocks[1]))
    assert _rule(verify(stray, _trusted(chain, 3), OPTIONS, now)) is Rule.NEXT_LINKS
    relaxed = replace(OPTIONS, link_required=False)
    assert verify(stray, _trusted(chain, 3), relaxed, now) == Success()
    assert verify(stray, _trusted(chain, 2), OPTIONS, now) == Success()


def test_strangers_earn_no_trust(chain: SignedChain, now: Timestamp) -> None:
    mine = SignedChain(("e", "f"))
    mine.grow(9)
    verdict = verify(mine.light_block(5), _trusted(chain, 1), OPTIONS, now)
    assert isinstance(verdict, NotEnoughTrust)
    assert (verdict.tally.signed_power, verdict.tally.needed_power, verdict.tally.total_power) == (0, 13, 40)


def test_exactly_one_third_and_two_thirds_are_too_little(now: Timestamp) -> None:
    made = SignedChain(("a", "b", "c"))
    made.grow(3)
    trusted = TrustedState.of(made.light_block(1))
    mixed = SignedChain(("a", "x", "y"))
    mixed.grow(3)
    assert isinstance(verify(mixed.light_block(3), trusted, OPTIONS, now), NotEnoughTrust)
    two = SignedChain(("a", "b", "y"))
    two.grow(3)
    assert verify(two.light_block(3), trusted, OPTIONS, now) == Success()
    short = SignedChain(("a", "b", "c"))
    short.grow(2)
    short.add(signing=("a", "b"))
    verdict = verify(short.light_block(3), trusted, OPTIONS, now)
    assert _rule(verdict) is Rule.TWO_THIRDS_SIGNED


def test_malformed_headers_and_commits_are_named(chain: SignedChain, now: Timestamp) -> None:
    trusted = _trusted(chain, 1)
    block = chain.light_block(5)
    commit = block.signed_header.commit
    cut = replace(commit, signatures=commit.signatures[:3])
    shifted = replace(commit, signatures=commit.signatures[1:] + commit.signatures[:1])
    doubled = replace(commit, signatures=(commit.signatures[0],) * 4)
    for bad, rule in ((cut, Rule.COMMIT_SOUND), (shifted, Rule.COMMIT_SOUND), (doubled, Rule.COMMIT_SOUND)):
        changed = replace(block, signed_header=replace(block.signed_header, commit=bad))
        assert _rule(verify(changed, trusted, OPTIONS, now)) is rule
    old_version = _resigned(chain, 5, block_version=10)
    assert _rule(verify(old_version, trusted, OPTIONS, now)) is Rule.SOUND_HEADER


def test_backwards_follows_hashes(chain: SignedChain) -> None:
    above, below = chain.blocks[5].header, chain.blocks[4].header
    assert verify_backwards(below, above, CHAIN_ID) == Success()
    assert _rule(verify_backwards(below, above, "other")) is Rule.SOUND_HEADER
    assert _rule(verify_backwards(chain.blocks[3].header, above, CHAIN_ID)) is Rule.PREVIOUS_LINKS
    assert _rule(verify_backwards(replace(below, app_hash=bytes(32)), above, CHAIN_ID)) is Rule.PREVIOUS_LINKS
    assert _rule(verify_backwards(replace(below, time=above.time), above, CHAIN_ID)) is Rule.TIME_FALLS
    assert _rule(verify_backwards(replace(below, height=0), above, CHAIN_ID)) is Rule.SOUND_HEADER


@pytest.mark.parametrize(("numerator", "denominator"), [(1, 4), (0, 1), (2, 1), (1, 0), (-1, -3)])
def test_other_trust_levels_are_refused(numerator: int, denominator: int) -> None:
    with pytest.raises(UsageRefused, match=f"{numerator}/{denominator}"):
        TrustLevel(numerator, denominator)


def test_an_empty_trusted_set_trusts_nobody(chain: SignedChain, now: Timestamp) -> None:
    nobody = TrustedState(chain.blocks[1].header, ValidatorSet(()))
    assert isinstance(verify(chain.light_block(5), nobody, OPTIONS, now), NotEnoughTrust)
