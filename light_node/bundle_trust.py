"""What a network's bundle says about trust, in the light client's terms; one rule for clients and workers alike."""

from __future__ import annotations

from dllm_protocol.bundle import NetworkBundle
from dllm_protocol.params import check_times
from dllm_protocol.receipt import BADGE_LOCAL
from dllm_protocol.verification.options import CLOCK_DRIFT_NS
from light_node.client import TrustOptions

NS_PER_MS = 1_000_000
LOCAL_DRIFT_NS = 3600 * 1_000_000_000
"""A chain of one machine shares its clock: blocks from the future say only that somebody set the clock back."""


def trust_options_of(bundle: NetworkBundle, height: int = 0, header_hash: bytes = b"") -> TrustOptions:
    """The bundle's root, or another one, under the chain's own trusting period.

    Raises:
        TimesOutOfOrder: who signs what is trusted for that long could no longer be punished for it.
    """
    check_times(bundle.genesis.params)
    return TrustOptions(
        height or bundle.trust_height,
        header_hash or bundle.trust_hash,
        period_ns=bundle.genesis.params.trusting_period_ms * NS_PER_MS,
        clock_drift_ns=LOCAL_DRIFT_NS if bundle.badge == BADGE_LOCAL else CLOCK_DRIFT_NS,
        witnesses_expected=bundle.badge != BADGE_LOCAL,
    )
