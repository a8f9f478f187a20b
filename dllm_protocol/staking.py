"""Stake and voting power: the formula and the bounds that every machine must share."""

from __future__ import annotations

UDLLM_PER_POWER = 1_000_000
"""Stake behind one unit of voting power."""
MAX_VALIDATORS = 512
"""Most seats that a chain's parameters may set up."""
MAX_CANDIDATES = 1_024
"""Most validators that stand for a seat at once."""


def power_of_stake(stake_udllm: int) -> int:
    """Voting power of a validator's stake, rounded down.

    The whole supply is below 2^60 udllm, so that no set comes near CometBFT's bound on the total, 2^60 − 1.
    """
    return stake_udllm // UDLLM_PER_POWER
