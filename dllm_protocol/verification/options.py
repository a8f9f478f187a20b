"""What a light client decides for itself before it verifies anything."""

from __future__ import annotations

from dataclasses import dataclass

from dllm_protocol.errors import UsageRefused
from dllm_protocol.verification.trust_level import ONE_THIRD, TrustLevel

SECOND_NS = 1_000_000_000
CLOCK_DRIFT_NS = 10 * SECOND_NS
"""CometBFT's default bound on how far a header's time may lie ahead of our clock."""
TRUSTING_PERIOD_NS = 168 * 3600 * SECOND_NS
"""CometBFT's command line default: one week."""


@dataclass(frozen=True, slots=True)
class VerificationOptions:
    """Parameters of one verification step."""

    chain_id: str
    trusting_period_ns: int = TRUSTING_PERIOD_NS
    """How long a verified header may be built upon; shorter than any unbonding delay."""
    clock_drift_ns: int = CLOCK_DRIFT_NS
    """How far ahead of our clock a header's time may lie."""
    trust_level: TrustLevel = ONE_THIRD
    """Which part of the trusted power must have signed a header that is not the next one."""
    link_required: bool = True
    """Whether the next header must name the trusted one as its predecessor. CometBFT v0.38 does not ask this
    (cometbft#2252); False judges recorded headers that carry no predecessor."""

    def __post_init__(self) -> None:
        if self.trusting_period_ns < 1 or self.clock_drift_ns < 0:
            raise UsageRefused(
                f"trusting period {self.trusting_period_ns} ns and clock drift {self.clock_drift_ns} ns "
                "must not be negative or empty"
            )
