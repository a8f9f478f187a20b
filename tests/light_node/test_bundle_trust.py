"""Whoever takes a bundle takes its chain's times, and only in the order that makes cheating dear."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.bundle import BUNDLE_VERSION, NetworkBundle
from dllm_protocol.params import NETWORK_PARAMS, TimesOutOfOrder
from light_node.bundle_trust import NS_PER_MS, trust_options_of
from tests.vectors.record_formats import BUNDLE

PARAMS = NETWORK_PARAMS
DISORDERED = {
    "evidence outlives the stake": {"unbonding_ms": PARAMS.evidence_age_ms},
    "trust outlives evidence": {"trusting_period_ms": PARAMS.evidence_age_ms},
    "trust is over before the next block": {"heartbeat_ms": PARAMS.trusting_period_ms},
    "no trust": {"trusting_period_ms": 0},
}


def test_the_root_is_trusted_for_the_chains_period() -> None:
    options = trust_options_of(BUNDLE.bundle)
    assert BUNDLE.bundle.version == BUNDLE_VERSION
    assert (options.height, options.hash) == (BUNDLE.bundle.trust_height, BUNDLE.bundle.trust_hash)
    assert options.period_ns == PARAMS.trusting_period_ms * NS_PER_MS


@pytest.mark.parametrize("case", sorted(DISORDERED))
def test_a_chain_with_times_in_disorder_is_not_trusted(case: str) -> None:
    params = replace(PARAMS, **DISORDERED[case])
    bundle: NetworkBundle = replace(BUNDLE.bundle, genesis=replace(BUNDLE.bundle.genesis, params=params))
    with pytest.raises(TimesOutOfOrder, match=str(params.evidence_age_ms)) as refused:
        trust_options_of(bundle)
    assert str(params.trusting_period_ms) in refused.value.message
    assert refused.value.hint
