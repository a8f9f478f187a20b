"""What CometBFT is told of a chain's beginning."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.genesis_document import NS_PER_MS, consensus_params_of, genesis_document
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
