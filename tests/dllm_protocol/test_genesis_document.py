"""What CometBFT is told of a chain's beginning."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.commit import BlockID, BlockIDFlag, Commit, CommitSig, PartSetHeader
from dllm_protocol.consensus_params import (
    BLOCK_MAX_BYTES,
    BLOCK_MAX_BYTES_DEFAULT,
    BLOCK_TX_BYTES_MAX,
    EVIDENCE_MAX_BYTES,
    HashedParams,
    commit_max_bytes,
)
from dllm_protocol.genesis_document import NS_PER_MS, consensus_params_of, genesis_document
from dllm_protocol.staking import MAX_VALIDATORS
from dllm_protocol.timestamp import Timestamp
from tests.vectors.record_formats import GENESIS


def test_evidence_counts_as_long_as_genesis_says_on_an_idle_chain_too() -> None:
    params, consensus = GENESIS.params, consensus_params_of(GENESIS)
    assert consensus.evidence_max_age_ns == params.evidence_age_ms * NS_PER_MS
    # A chain makes at least a block each heartbeat: when evidence is too old in time, it is too old in blocks.
    assert consensus.evidence_max_age_blocks * params.heartbeat_ms <= params.evidence_age_ms
    assert (consensus.evidence_max_age_blocks + 1) * params.heartbeat_ms > params.evidence_age_ms


@pytest.mark.parametrize("heartbeat_ms", [1 << 40, 0])
def test_the_age_in_blocks_is_one_that_cometbft_takes(heartbeat_ms: int) -> None:
    params = replace(GENESIS.params, heartbeat_ms=heartbeat_ms)
    assert consensus_params_of(replace(GENESIS, params=params)).evidence_max_age_blocks >= 1


def test_the_first_set_has_its_stakes_power() -> None:
    document = genesis_document(GENESIS, consensus_params_of(GENESIS))
    assert [one["power"] for one in document["validators"]] == [str(one.power) for one in GENESIS.validators]
    assert document["consensus_params"]["evidence"]["max_age_num_blocks"] == "25920"


def test_a_block_is_as_large_as_everything_that_it_may_hold_at_once() -> None:
    consensus = consensus_params_of(GENESIS)
    assert consensus.block == HashedParams(BLOCK_MAX_BYTES)
    assert consensus.hash() == HashedParams(BLOCK_MAX_BYTES).hash() != HashedParams().hash()
    # What CometBFT leaves for transactions of a block with the most evidence and the largest commit.
    left = BLOCK_MAX_BYTES - 11 - 626 - commit_max_bytes(MAX_VALIDATORS) - consensus.evidence_max_bytes
    assert left == BLOCK_TX_BYTES_MAX
    assert consensus.evidence_max_bytes == EVIDENCE_MAX_BYTES < consensus.block.block_max_bytes
    document = genesis_document(GENESIS, consensus)["consensus_params"]
    assert document["block"]["max_bytes"] == str(BLOCK_MAX_BYTES)


def test_the_longest_commit_of_the_largest_set_is_within_its_bound() -> None:
    late = Timestamp(253_402_300_799, 999_999_999)
    entry = CommitSig(BlockIDFlag.COMMIT, b"a" * 20, late, b"s" * 64)
    block_id = BlockID(b"h" * 32, PartSetHeader(2**32 - 1, b"p" * 32))
    commit = Commit(2**63 - 1, 2**31 - 1, block_id, (entry,) * MAX_VALIDATORS)
    assert len(commit.encode()) <= commit_max_bytes(MAX_VALIDATORS)


def test_a_chain_whose_genesis_names_no_size_has_cometbfts_default() -> None:
    old = replace(GENESIS, params=replace(GENESIS.params, block_max_bytes=0))
    assert consensus_params_of(old).block == HashedParams(BLOCK_MAX_BYTES_DEFAULT)
