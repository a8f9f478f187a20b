"""From a trusted header to a target: forwards by skipping, backwards by the hash chain (CometBFT light/client.go)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dllm_protocol.block import LightBlock
from dllm_protocol.header import Header
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.verification.options import VerificationOptions
from dllm_protocol.verification.predicates import Reason, Rule
from dllm_protocol.verification.verifier import (
    Invalid,
    NotEnoughTrust,
    Success,
    TrustedState,
    verify,
    verify_backwards,
)
from light_node.errors import HeaderRefused, RootExpired

PIVOT_NUMERATOR = 9
PIVOT_DENOMINATOR = 16
FETCHES_MAX = 5000
"""Bound on headers fetched to reach one target; a chain that changes all validators all the time needs each."""
BACKWARDS_MAX = 50_000
"""Bound on headers walked backwards."""
_BATCH = 32

FetchBlock = Callable[[int], Awaitable[LightBlock]]
FetchHeader = Callable[[int], Awaitable[Header]]


async def skip_forwards(
    target: LightBlock,
    trusted: TrustedState,
    fetch: FetchBlock,
    options: VerificationOptions,
    now: Callable[[], Timestamp],
    state_of: Callable[[LightBlock], TrustedState] = TrustedState.of,
) -> list[LightBlock]:
    """Verify a target by skipping, with headers in between where too little of the trusted power signed it.

    Args:
        target: the block to believe.
        trusted: what is believed.
        fetch: gets a light block between the two by height.
        options: rules of one step.
        now: the time here, asked for each step.
        state_of: what is believed of a block verified on the way.

    Returns:
        The blocks verified on the way, rising, the target last.

    Raises:
        HeaderRefused, RootExpired, and whatever `fetch` raises.
    """
    waiting = [target]
    depth = 0
    fetched = 0
    trace: list[LightBlock] = []
    while True:
        block = waiting[depth]
        verdict = verify(block, trusted, options, now())
        match verdict:
            case Success():
                trace.append(block)
                if depth == 0:
                    return trace
                trusted = state_of(block)
                del waiting[depth:]
                depth = 0
            case NotEnoughTrust():
                if depth + 1 == len(waiting):
                    if fetched == FETCHES_MAX:
                        raise HeaderRefused(
                            f"header {target.height} needs more than {FETCHES_MAX} headers in between, "
                            f"trusted is {trusted.header.height}",
                            hint="begin at a younger trust root",
                        )
                    fetched += 1
                    waiting.append(await _fetched_pivot(fetch, trusted.header.height, block.height))
                depth += 1
            case Invalid(reason):
                raise refusal(reason, block.height)


async def _fetched_pivot(fetch: FetchBlock, low: int, high: int) -> LightBlock:
    """The block at 9/16 of the way; another height would not bring the walk nearer. Raises HeaderRefused."""
    height = low + (high - low) * PIVOT_NUMERATOR // PIVOT_DENOMINATOR
    block = await fetch(height)
    if block.height != height:
        raise HeaderRefused(
            f"asked for header {height}, was given header {block.height}", hint="use another node"
        )
    return block


async def walk_backwards(height: int, trusted: Header, fetch: FetchHeader, chain_id: str) -> Header:
    """Verify a header below a trusted one by the chain of last_block_id; neither signatures nor expiry matter.

    Args:
        height: the one wanted, below the trusted one.
        trusted: a believed header above it.
        fetch: gets a header by height.
        chain_id: the chain.

    Raises:
        HeaderRefused: the chain of hashes breaks, or is too long.
    """
    steps = trusted.height - height
    if not 1 <= steps <= BACKWARDS_MAX:
        raise HeaderRefused(
            f"header {height} is {steps} below the trusted header {trusted.height}, at most {BACKWARDS_MAX} are walked",
            hint="ask for a younger height",
        )
    current = trusted
    while current.height > height:
        lowest = max(height, current.height - _BATCH)
        wanted = range(current.height - 1, lowest - 1, -1)
        for below in await asyncio.gather(*(fetch(one) for one in wanted)):
            verdict = verify_backwards(below, current, chain_id)
            if isinstance(verdict, Invalid):
                raise refusal(verdict.reason, below.height)
            current = below
    return current


def refusal(reason: Reason, height: int) -> HeaderRefused | RootExpired:
    """Turn a broken rule into the error that a person reads."""
    if reason.rule is Rule.TRUST_NOT_EXPIRED:
        return RootExpired(
            reason.message,
            hint="renew it against two sources that are not the same: dllm light trust refresh",
        )
    if reason.rule is Rule.TIME_NOT_IN_FUTURE:
        hint = "if your own clock is wrong, set it"
    else:
        hint = "the node shows a header that does not hold: use another node"
    return HeaderRefused(reason.message, hint=hint, height=height, rule=reason.rule)
