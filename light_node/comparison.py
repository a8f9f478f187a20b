"""What one witness has to say to a verified header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from dllm_protocol.block import LightBlock
from dllm_protocol.errors import DllmError
from dllm_protocol.verification.options import VerificationOptions
from dllm_protocol.verification.predicates import (
    has_matching_next_validators,
    has_matching_validators,
    is_sound,
)
from light_node.clock import Clock
from light_node.errors import HeightUnavailable
from light_node.providers.faults import Fault, fault_of
from light_node.providers.light_blocks import LightBlocks
from light_node.source import Source

MAX_BLOCK_LAG_NS = 10_000_000_000
"""CometBFT's default bound on how long a node may take to make or get the next block."""
POLL_FIRST_S = 0.05
POLL_MAX_S = 2.0
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Matches:
    """The same header, and the same proposer priorities."""


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Another header for that height; or an older height whose header is not older."""

    block: LightBlock


@dataclass(frozen=True, slots=True)
class Diverges:
    """The same header, other proposer priorities: hashes of both."""

    ours: bytes
    theirs: bytes


@dataclass(frozen=True, slots=True)
class Behind:
    """It is not that far, after it was waited for."""

    height: int


@dataclass(frozen=True, slots=True)
class Absent:
    """It did not answer, or does not have it."""

    error: DllmError


@dataclass(frozen=True, slots=True)
class Unsound:
    """What it shows is no light block of this chain."""

    reason: str


Comparison: TypeAlias = Matches | Conflicts | Diverges | Behind | Absent | Unsound


class Comparer:
    """Asks one witness for the header at a target's height."""

    def __init__(
        self,
        blocks: LightBlocks,
        options: VerificationOptions,
        clock: Clock,
        max_block_lag_ns: int = MAX_BLOCK_LAG_NS,
    ) -> None:
        """Prepare; nothing is asked."""
        self._blocks = blocks
        self._options = options
        self._clock = clock
        self._wait_s = (2 * options.clock_drift_ns + max_block_lag_ns) / NS_PER_S
        self._waited: dict[Source, int] = {}

    def waited_for(self, witness: Source, height: int) -> None:
        """A witness stood at this height for as long as one waits."""
        self._waited[witness] = height

    async def compare(self, witness: Source, target: LightBlock) -> Comparison:
        """Compare a target with what a witness shows."""
        try:
            return self._held_against(
                target, witness, await self._blocks.at(witness, target.height, as_told=True)
            )
        except HeightUnavailable as error:
            return await self._after_waiting(witness, target, error)
        except DllmError as error:
            return _of_error(witness, error)

    async def _after_waiting(
        self, witness: Source, target: LightBlock, refusal: HeightUnavailable
    ) -> Comparison:
        """The witness's chain is too short. Perhaps it is late; perhaps the target was made too early.

        A node that takes part makes a block whose time is not before the target's within 2 · drift + lag. One that
        stood still for so long is not waited for again before it moves.
        """
        deadline_s = self._clock.monotonic_s() + self._wait_s
        poll_s = POLL_FIRST_S
        while True:
            try:
                latest = await witness.signed_header(None)
                if latest.header.height > target.height:
                    latest = await witness.signed_header(target.height)
                if latest.header.height == target.height or latest.header.time >= target.header.time:
                    block = await self._blocks.completed(witness, latest, as_told=True)
                    return self._held_against(target, witness, block)
            except HeightUnavailable:
                return Absent(refusal)
            except DllmError as error:
                return _of_error(witness, error)
            left_s = deadline_s - self._clock.monotonic_s()
            if left_s <= 0 or self._waited.get(witness) == latest.header.height:
                self._waited[witness] = latest.header.height
                return Behind(latest.header.height)
            await self._clock.sleep(min(poll_s, left_s))
            poll_s = min(2 * poll_s, POLL_MAX_S)

    def _held_against(self, target: LightBlock, witness: Source, block: LightBlock) -> Comparison:
        reason = (
            is_sound(block, self._options.chain_id)
            or has_matching_validators(block)
            or has_matching_next_validators(block)
        )
        if reason is not None:
            return Unsound(f"{witness.name}: {reason.message}")
        if block.hash() != target.hash():
            return Conflicts(block)
        ours, theirs = target.validators.priority_hash(), block.validators.priority_hash()
        return Matches() if ours == theirs else Diverges(ours, theirs)


def _of_error(witness: Source, error: DllmError) -> Comparison:
    match fault_of(error):
        case Fault.SILENT:
            return Absent(error)
        case Fault.LIE:
            return Unsound(f"{witness.name}: {error.message}")
        case Fault.NOT_THEIRS:
            raise error
