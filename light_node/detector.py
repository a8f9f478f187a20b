"""The second wall: a verified header is compared with what every witness shows (CometBFT light/detector.go).

Signatures of a third of an old validator set make a header believable to a light client. They cannot make it the one
that everybody else has: so the header must be the same at the witnesses; where it is not, `examination` finds out why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

from dllm_protocol.block import LightBlock
from dllm_protocol.errors import DllmError, TimedOut
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
    NoWitnessAgrees,
    PrioritiesDiverge,
)
from light_node.examination import Examiner
from light_node.providers.asking import as_answered
from light_node.providers.providers import Providers
from light_node.source import Source

REST_S = 60.0
"""A witness that let a question time out is left alone for so long, as long as another one vouches."""


class Detector:
    """Compares targets with witnesses, and finds out what a difference means."""

    def __init__(self, providers: Providers, comparer: Comparer, examiner: Examiner, clock: Clock) -> None:
        """Prepare; nothing is asked."""
        self._providers = providers
        self._comparer = comparer
        self._examiner = examiner
        self._clock = clock
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
                        unsound[witness] = await self._examiner.examine(trace, block, witness)
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
