"""Why a witness shows another header: a lie, or an attack that each side is told of (CometBFT light/detector.go).

Both chains are followed from the trusted header to the point where they part. If the witness's can be verified as well,
validators signed twice, and what they signed is evidence for the full nodes of either side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from dllm_protocol.block import LightBlock
from dllm_protocol.errors import DllmError
from dllm_protocol.light_attack import LightClientAttackEvidence, attack_kind, evidence_of_attack
from dllm_protocol.verification.options import VerificationOptions
from dllm_protocol.verification.verifier import TrustedState
from light_node.bisection import skip_forwards
from light_node.clock import Clock
from light_node.errors import HeaderRefused, LightClientAttack
from light_node.providers.events import EventKind, Journal
from light_node.providers.light_blocks import LightBlocks
from light_node.providers.providers import Providers
from light_node.source import Source

EXAMINATION_S = 120.0
"""Longest time spent on a witness's other chain; a liar could let each of its headers drip in."""
SENDING_TRIES = 4
SENDING_PAUSE_S = 1.0
_TOO_EARLY = "don't have commit at height"
"""CometBFT's words where the conflicting height is its newest one."""


@dataclass(frozen=True, slots=True)
class Parting:
    """Where a node's chain parts from a trace."""

    trace: tuple[LightBlock, ...]
    """The node's verified blocks, from the last common one to its block where the chains differ."""
    conflicting: LightBlock
    """The trace's block there."""

    @property
    def common(self) -> LightBlock:
        """The last block that both have."""
        return self.trace[0]

    @property
    def trusted(self) -> LightBlock:
        """The node's own block where the chains differ."""
        return self.trace[-1]

    def evidence(self) -> LightClientAttackEvidence:
        """What the node's side can punish the trace's side for."""
        return evidence_of_attack(self.conflicting, self.trusted, self.common)


class Examiner:
    """Follows two chains to where they part, for one client."""

    def __init__(
        self,
        providers: Providers,
        blocks: LightBlocks,
        options: VerificationOptions,
        clock: Clock,
        journal: Journal,
    ) -> None:
        """Prepare; nothing is asked."""
        self._providers = providers
        self._blocks = blocks
        self._options = options
        self._clock = clock
        self._journal = journal

    async def examine(self, trace: Sequence[LightBlock], block: LightBlock, witness: Source) -> str:
        """Follow a witness's other chain from the trusted block.

        Returns:
            Why its header cannot be verified.

        Raises:
            LightClientAttack: it can.
        """
        primary = self._providers.primary
        differ = (
            f"height {block.height}: {witness.name} has header {block.hash().hex()}, "
            f"{primary.name} has {trace[-1].hash().hex()} at {trace[-1].height}"
        )
        try:
            async with asyncio.timeout(EXAMINATION_S):
                there = await self._parting(await self._as_nodes_judge(trace, primary), block, witness)
        except DllmError as error:
            return f"{differ}, and the former does not hold: {error.message}"
        except TimeoutError:
            return f"{differ}, and the former could not be verified within {EXAMINATION_S:g} s"
        against_primary = there.evidence()
        kind = attack_kind(there.conflicting.signed_header, there.trusted.signed_header)
        message = (
            f"{kind} attack at height {there.conflicting.height}: {primary.name} has header "
            f"{there.conflicting.hash().hex()}, {witness.name} has {there.trusted.hash().hex()}, both signed by "
            f"validators trusted since header {there.common.height}"
        )
        self._journal.note(EventKind.ATTACK, primary.name, message)
        self._providers.refused(message)
        await self._send(against_primary, witness)
        against_witness = await self._reversed(there, primary)
        raise LightClientAttack(
            message,
            kind=kind,
            height=there.conflicting.height,
            against_primary=against_primary,
            against_witness=against_witness,
            hint="validators signed two chains: do not send anything before it is known which one stands",
        )

    async def _as_nodes_judge(self, trace: Sequence[LightBlock], primary: Source) -> Sequence[LightBlock]:
        """Walk the primary's trace again in steps that full nodes can judge, where validators change on the way.

        We ask a third of a block's next validators, nodes ask a third of its own. A primary that shows no more blocks
        is accused with the steps that there are.
        """
        if all(one.header.validators_hash == one.header.next_validators_hash for one in trace[:-1]):
            return trace
        try:
            return await self._verified(primary, trace[0], trace[-1])
        except DllmError:
            return trace

    async def _reversed(self, there: Parting, primary: Source) -> LightClientAttackEvidence | None:
        """Look from the primary's side: perhaps it is the witness that lies."""
        try:
            here = await self._parting(there.trace, there.conflicting, primary)
        except DllmError as error:
            self._journal.note(EventKind.EVIDENCE_NOT_SENT, primary.name, error.message)
            return None
        evidence = here.evidence()
        await self._send(evidence, primary)
        return evidence

    async def _send(self, evidence: LightClientAttackEvidence, receiver: Source) -> None:
        """Hand evidence to a full node; that it does not take it changes nothing here.

        A node judges by commits that stand in its blocks, so at its tip it has to make one more block first.
        """
        for tries_left in range(SENDING_TRIES - 1, -1, -1):
            try:
                name = await receiver.broadcast_evidence(evidence)
            except DllmError as error:
                if tries_left and _TOO_EARLY in error.message:
                    await self._clock.sleep(SENDING_PAUSE_S)
                    continue
                self._journal.note(EventKind.EVIDENCE_NOT_SENT, receiver.name, error.message)
            else:
                self._journal.note(EventKind.EVIDENCE_SENT, receiver.name, f"evidence {name.hex()}")
            return

    async def _parting(self, trace: Sequence[LightBlock], target: LightBlock, source: Source) -> Parting:
        """Verify a node's chain at each height of a trace until it differs from it.

        Args:
            trace: verified blocks of the other side, rising; the first is common to both.
            target: the node's block that is known to differ, not above the trace's last.
            source: the node.

        Raises:
            HeaderRefused: its chain does not hold, or does not differ.
            And what the node raises.
        """
        previous = trace[0]
        if target.height < previous.height:
            raise HeaderRefused(f"header {target.height} is below the trusted header {previous.height}")
        verified: tuple[LightBlock, ...] = (previous,)
        for block in trace:
            if block.height > target.height:
                # The trace goes on where the node's chain ends: made quicker than time allows.
                return await self._forward(previous, verified, block, target, source)
            theirs = target if block.height == target.height else await self._blocks.at(source, block.height)
            if block is trace[0]:
                if theirs.hash() != block.hash():
                    raise HeaderRefused(
                        f"header {block.height}: trusted is {block.hash().hex()}, "
                        f"{source.name} has {theirs.hash().hex()}"
                    )
                previous = theirs
                continue
            verified = await self._verified(source, previous, theirs)
            if theirs.hash() != block.hash():
                return Parting(verified, block)
            previous = theirs
        raise HeaderRefused(f"{source.name} shows the same headers now that it showed otherwise before")

    async def _forward(
        self,
        previous: LightBlock,
        verified: tuple[LightBlock, ...],
        block: LightBlock,
        target: LightBlock,
        source: Source,
    ) -> Parting:
        if block.header.time > target.header.time:
            raise HeaderRefused(
                f"header {target.height} of {source.name} is of {target.header.time}, "
                f"before header {block.height} of {block.header.time}"
            )
        if previous.height != target.height:
            verified = await self._verified(source, previous, target)
        return Parting(verified, block)

    async def _verified(
        self, source: Source, trusted: LightBlock, target: LightBlock
    ) -> tuple[LightBlock, ...]:
        async def fetch(height: int) -> LightBlock:
            return await self._blocks.at(source, height)

        of = TrustedState.as_nodes_judge
        walked = await skip_forwards(target, of(trusted), fetch, self._options, self._clock.now, of)
        return (trusted, *walked)
