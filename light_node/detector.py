"""The second wall: a verified header is compared with what every witness shows (CometBFT light/detector.go).

Signatures of a third of an old validator set make a header believable to a light client. They cannot make it the one
that everybody else has: so the header must be the same at the witnesses, and where it is not, both chains are followed
to the point where they part, and each side is told whom that proves guilty.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from dllm_protocol.block import LightBlock
from dllm_protocol.errors import DllmError, TimedOut
from dllm_protocol.light_attack import (
    LightClientAttackEvidence,
    attack_kind,
    evidence_of_attack,
)
from dllm_protocol.verification.options import VerificationOptions
from dllm_protocol.verification.verifier import TrustedState
from light_node.bisection import skip_forwards
from light_node.clock import Clock
from light_node.comparison import (
    Absent,
    Behind,
    Comparer,
    Comparison,
    Conflicts,
    Diverges,
    Matches,
    Unsound,
)
from light_node.errors import (
    ForkDetected,
    HeaderRefused,
    LightClientAttack,
    NoWitnessAgrees,
    PrioritiesDiverge,
)
from light_node.providers.asking import as_answered
from light_node.providers.events import EventKind, Journal
from light_node.providers.light_blocks import LightBlocks
from light_node.providers.providers import Providers
from light_node.source import Source

REST_S = 60.0
"""A witness that let a question time out is left alone for so long, as long as another one vouches."""
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


class Detector:
    """Compares targets with witnesses, and finds out what a difference means."""

    def __init__(
        self,
        providers: Providers,
        blocks: LightBlocks,
        comparer: Comparer,
        options: VerificationOptions,
        clock: Clock,
        journal: Journal,
    ) -> None:
        """Prepare; nothing is asked."""
        self._providers = providers
        self._blocks = blocks
        self._comparer = comparer
        self._options = options
        self._clock = clock
        self._journal = journal
        self._rests_until_s: dict[Source, float] = {}

    async def check_root(self, root: LightBlock) -> None:
        """No witness may contradict a trust root; those that do not answer are passed over.

        Raises:
            ForkDetected, PrioritiesDiverge
        """
        unsound: dict[Source, str] = {}
        async with aclosing(as_answered(self._providers.witnesses, self._question(root))) as answers:
            async for witness, answer in answers:
                match _found(answer):
                    case Conflicts(block):
                        raise fork(root, self._providers.primary.name, block, witness.name)
                    case Unsound(reason):
                        unsound[witness] = reason
                    case other:
                        self._take(root, witness, other)
        if len(unsound) < len(self._providers.witnesses):
            self._providers.remove(unsound)

    async def check(self, trace: Sequence[LightBlock]) -> None:
        """Compare a verified target with every witness; nothing is compared where there is none.

        Args:
            trace: the trusted block, the blocks verified on the way, the target last.

        Raises:
            LightClientAttack: a witness has another header there that can be verified as well.
            PrioritiesDiverge, NoWitnessAgrees, NoWitnessLeft
        """
        witnesses = self._providers.witnesses
        if not witnesses:
            return
        target = trace[-1]
        unsound: dict[Source, str] = {}
        now_s = self._clock.monotonic_s()
        awake = [one for one in witnesses if self._rests_until_s.get(one, now_s) <= now_s]
        matched = await self._compared(trace, awake, unsound)
        if not matched:
            resting = [one for one in witnesses if one not in awake]
            matched = await self._compared(trace, resting, unsound)
        self._providers.remove(unsound)
        if not matched:
            told = "; ".join(one.problem for one in self._providers.peers()[1:] if one.problem)
            raise NoWitnessAgrees(
                f"no witness shows header {target.height} {target.hash().hex()} "
                f"of {self._providers.primary.name}: {told}",
                hint="try again when a witness answers, or add another one",
            )

    async def _compared(
        self, trace: Sequence[LightBlock], witnesses: Sequence[Source], unsound: dict[Source, str]
    ) -> bool:
        """Ask these witnesses; return whether one shows the target. Who shows what does not hold goes to `unsound`."""
        target = trace[-1]
        matched = False
        async with aclosing(as_answered(witnesses, self._question(target))) as answers:
            async for witness, answer in answers:
                match _found(answer):
                    case Conflicts(block):
                        unsound[witness] = await self._examine(trace, block, witness)
                    case Unsound(reason):
                        unsound[witness] = reason
                    case other:
                        matched = self._take(target, witness, other) or matched
        return matched

    def waited_for(self, witness: Source, height: int) -> None:
        """A node is known to stand still at a height: it is not waited for again until it moves."""
        self._comparer.waited_for(witness, height)

    def _question(self, target: LightBlock) -> Callable[[Source], Awaitable[Comparison]]:
        async def compare(witness: Source) -> Comparison:
            return await self._comparer.compare(witness, target)

        return compare

    def _take(self, target: LightBlock, witness: Source, found: Comparison) -> bool:
        """Take note of a comparison that accuses nobody; return whether it is a match."""
        match found:
            case Matches():
                self._providers.saw(witness, target.height)
                return True
            case Diverges(ours, theirs):
                raise PrioritiesDiverge(
                    f"header {target.height}: {self._providers.primary.name} has proposer priorities {ours.hex()}, "
                    f"{witness.name} has {theirs.hex()}",
                    hint="one of the nodes runs software that computes the rotation wrongly",
                )
            case Behind(height):
                self._providers.saw(witness, height)
                self._providers.ignored(witness, f"{witness.name} is at {height}, asked was {target.height}")
            case Absent(error):
                if isinstance(error, TimedOut):
                    self._rests_until_s[witness] = self._clock.monotonic_s() + REST_S
                self._providers.ignored(witness, f"{witness.name}: {error.message}")
            case _:
                raise AssertionError(f"{found} is taken elsewhere")
        return False

    async def _examine(self, trace: Sequence[LightBlock], block: LightBlock, witness: Source) -> str:
        """Follow a witness's other chain from the trusted block.

        Returns:
            Why its header cannot be verified.

        Raises:
            LightClientAttack: it can.
        """
        primary = self._providers.primary
        try:
            there = await self._parting(await self._as_nodes_judge(trace, primary), block, witness)
        except DllmError as error:
            return (
                f"height {block.height}: {witness.name} has header {block.hash().hex()}, {primary.name} has "
                f"{trace[-1].hash().hex()} at {trace[-1].height}, and the former does not hold: {error.message}"
            )
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


def _found(answer: Comparison | DllmError) -> Comparison:
    """What a comparison came to; it turns a node's errors into values itself, others are ours."""
    if isinstance(answer, DllmError):
        raise answer
    return answer


def fork(block: LightBlock, name: str, other: LightBlock, other_name: str) -> ForkDetected:
    """Two nodes show different headers for one height, and nothing older is trusted that could decide."""
    return ForkDetected(
        f"height {block.height}: {name} has header {block.hash().hex()}, "
        f"{other_name} has {other.hash().hex()} at {other.height}",
        hint="one of them lies, or the chain forked: do not send anything before it is known which",
    )
