"""Counting signatures: by position, by address, and what libsodium refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.block_errors import InvalidBlock
from dllm_protocol.commit import BlockIDFlag, Commit, CommitSig
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import Validator, ValidatorSet
from dllm_protocol.verification.trust_level import ONE_THIRD, TWO_THIRDS, TrustLevel
from dllm_protocol.verification.voting_power import tally_by_address, tally_by_index
from tests.light_node.signed_chain import CHAIN_ID, SignedChain, validator_set

NAMES = ("a", "b", "c", "d")
CHAIN = SignedChain(NAMES)
CHAIN.grow(2)
SET, COMMIT = CHAIN.set_at(2), CHAIN.commits[2]


def _spoilt(commit: Commit, indexes: set[int]) -> Commit:
    """The commit with other entries' signatures in those places."""
    return replace(
        commit,
        signatures=tuple(
            replace(one, signature=bytes(64)) if at in indexes else one
            for at, one in enumerate(commit.signatures)
        ),
    )


def test_all_sign() -> None:
    tally = tally_by_index(CHAIN_ID, SET, COMMIT, stop_early=False)
    assert (tally.signed_power, tally.needed_power, tally.total_power, tally.refused) == (40, 26, 40, 0)
    assert tally_by_index(CHAIN_ID, SET, COMMIT).signed_power == 30


@given(st.sets(st.integers(0, 3)), st.sets(st.integers(0, 3)))
def test_only_good_signatures_count(spoilt: set[int], absent: set[int]) -> None:
    commit = _spoilt(COMMIT, spoilt)
    entries = tuple(CommitSig.absent() if at in absent else one for at, one in enumerate(commit.signatures))
    commit = replace(commit, signatures=entries)
    tally = tally_by_index(CHAIN_ID, SET, commit, stop_early=False)
    good = 4 - len(spoilt | absent)
    assert tally.signed_power == 10 * good
    assert tally.refused == len(spoilt - absent)
    assert tally_by_index(CHAIN_ID, SET, commit).is_enough == (good >= 3)
    assert tally_by_address(CHAIN_ID, SET, commit, ONE_THIRD).is_enough == (good >= 2)


def test_votes_for_nothing_do_not_count() -> None:
    nil = replace(COMMIT, signatures=tuple(replace(one, flag=BlockIDFlag.NIL) for one in COMMIT.signatures))
    assert tally_by_index(CHAIN_ID, SET, nil, stop_early=False).signed_power == 0


def test_another_chain_s_signatures_do_not_count() -> None:
    assert tally_by_index("other-chain", SET, COMMIT, stop_early=False).signed_power == 0


def test_position_and_address_must_agree() -> None:
    turned = replace(COMMIT, signatures=COMMIT.signatures[1:] + COMMIT.signatures[:1])
    with pytest.raises(InvalidBlock, match="signature 0 is by"):
        tally_by_index(CHAIN_ID, SET, turned)
    with pytest.raises(InvalidBlock, match="3 signatures, the validator set has 4"):
        tally_by_index(CHAIN_ID, SET, replace(COMMIT, signatures=COMMIT.signatures[:3]))


def test_by_address_skips_strangers_and_refuses_doubles() -> None:
    trusted = validator_set(("a", "x", "y"))
    tally = tally_by_address(CHAIN_ID, trusted, COMMIT, ONE_THIRD, stop_early=False)
    assert (tally.signed_power, tally.needed_power, tally.total_power) == (10, 10, 30)
    assert not tally.is_enough
    doubled = replace(COMMIT, signatures=(*COMMIT.signatures, COMMIT.signatures[0]))
    with pytest.raises(InvalidBlock, match="signs twice, at 0 and at 4"):
        tally_by_address(CHAIN_ID, SET, doubled, ONE_THIRD)


def test_a_low_order_key_counts_as_absent() -> None:
    """CometBFT's ZIP-215 accepts any message for this key and signature; libsodium refuses, and so nothing is added."""
    low_order_key = bytes([1]) + bytes(31)
    members = ValidatorSet((Validator(low_order_key, 100), *SET.validators))
    crafted = CommitSig(
        BlockIDFlag.COMMIT, members.validators[0].address, Timestamp(5), low_order_key + bytes(32)
    )
    commit = replace(COMMIT, signatures=(crafted, *COMMIT.signatures))
    tally = tally_by_index(CHAIN_ID, members, commit, stop_early=False)
    assert (tally.signed_power, tally.refused, tally.is_enough) == (40, 1, False)
    assert "1 signatures refused" in str(tally)


def test_fractions_round_down() -> None:
    assert ONE_THIRD.power_needed(10) == 3
    assert TWO_THIRDS.power_needed(10) == 6
    assert str(TrustLevel(1, 2)) == "1/2"
