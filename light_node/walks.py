"""Walks from a trusted header to another through the primary; a primary that lies on the way is replaced."""

from __future__ import annotations

from contextlib import aclosing, suppress

from dllm_protocol.block import LightBlock, SignedHeader
from dllm_protocol.block_errors import InvalidBlock
from dllm_protocol.errors import DllmError
from dllm_protocol.header import Header
from dllm_protocol.verification.options import VerificationOptions
from dllm_protocol.verification.predicates import is_not_from_the_future
from dllm_protocol.verification.verifier import Invalid, TrustedState, verify_shown
from dllm_protocol.verification.voting_power import tally_by_address
from light_node.bisection import refusal, skip_forwards, walk_backwards
from light_node.clock import Clock
from light_node.errors import AnswerRefused, HeaderRefused
from light_node.providers.asking import as_answered
from light_node.providers.faults import Fault, fault_of, is_from_the_future
from light_node.providers.light_blocks import LightBlocks
from light_node.providers.providers import Providers
from light_node.source import Source

Trace = tuple[LightBlock, ...]
"""The trusted block, the blocks verified on the way, the target last."""


class Walks:
    """Walks of one client."""

    def __init__(
        self, providers: Providers, blocks: LightBlocks, options: VerificationOptions, clock: Clock
    ) -> None:
        """Prepare; nothing is asked."""
        self._providers = providers
        self._blocks = blocks
        self._options = options
        self._clock = clock

    async def at(self, height: int) -> LightBlock:
        """Return the primary's light block at a height, not verified; see `Providers.ask`."""

        async def at_height(source: Source) -> LightBlock:
            return await self._blocks.at(source, height, as_told=bool(self._providers.witnesses))

        return await self._providers.ask(at_height)

    async def forwards(self, target: LightBlock, trusted: LightBlock) -> Trace:
        """Verify a target of the primary's by skipping.

        A primary that shows an invalid header on the way, or none, is replaced by a witness that shows the same target;
        if the target itself is invalid, that is said at once, and the next question goes to a witness.

        Raises:
            HeaderRefused, RootExpired, and what the primary raises.
        """
        for _ in range(len(self._providers.witnesses) + 1):
            try:
                return await self.forwards_of(self._providers.primary, target, trusted)
            except DllmError as error:
                if is_from_the_future(error):
                    await self._in_time(error, trusted)
                if fault_of(error) is Fault.NOT_THEIRS:
                    raise
                target = await self._of_another(target, error)
        return await self.forwards_of(self._providers.primary, target, trusted)

    async def forwards_of(self, source: Source, target: LightBlock, trusted: LightBlock) -> Trace:
        """Verify a node's target by skipping through its own headers."""

        async def fetch(height: int) -> LightBlock:
            return await self._blocks.at(source, height)

        state = TrustedState.of(trusted)
        return (trusted, *await skip_forwards(target, state, fetch, self._options, self._clock.now))

    def require_known_signers(self, source: Source, shown: SignedHeader, trusted: LightBlock) -> None:
        """Another header at the trusted height says something only where its validators signed it too.

        Raises:
            AnswerRefused: less than a third of them did, so anybody could have made it up.
        """
        if shown.header.height != trusted.height or shown.header.hash() == trusted.hash():
            return
        try:
            shown.validate_basic(self._options.chain_id)
            tally = tally_by_address(
                self._options.chain_id, trusted.validators, shown.commit, self._options.trust_level
            )
            reason = "" if tally.is_enough else f"power {tally}"
        except InvalidBlock as error:
            reason = error.message
        if reason:
            raise AnswerRefused(
                f"height {trusted.height}: trusted has header {trusted.hash().hex()}, "
                f"{source.name} has {shown.header.hash().hex()}, and the latter does not hold: {reason}"
            )

    async def backwards(self, height: int, above: Header) -> Header:
        """Verify the header at a lower height by the hash chain.

        A primary that fails or lies on the way is replaced; what has been walked is walked again.

        Raises:
            HeaderRefused, and what the primary raises.
        """
        for _ in range(len(self._providers.witnesses) + 1):
            try:
                return await self._walked_back(height, above)
            except DllmError as error:
                await self._providers.replace_primary(error, lambda source: source.signed_header(height))
        return await self._walked_back(height, above)

    async def block_of(self, header: Header) -> LightBlock:
        """Return the light block of a verified header; its commit and validators are checked, whoever shows them.

        Raises:
            HeaderRefused, AnswerRefused, and what the primary raises.
        """

        async def sound(source: Source) -> LightBlock:
            block = await self._blocks.at(source, header.height)
            if block.hash() != header.hash():
                raise AnswerRefused(
                    f"{source.name}: header {header.height} is {header.hash().hex()}, answered {block.hash().hex()}"
                )
            verdict = verify_shown(block, self._options.chain_id)
            if isinstance(verdict, Invalid):
                raise refusal(verdict.reason, header.height)
            return block

        return await self._providers.ask(sound)

    async def _of_another(self, target: LightBlock, error: DllmError) -> LightBlock:
        """The same target as a witness shows it, which takes the primary's place.

        Where no witness shows it, the target itself may be made up: `error` is raised, and the next question goes to
        a witness all the same, so that one liar does not stop a client.
        """
        is_invalid = isinstance(error, HeaderRefused) and error.height == target.height
        blamed = self._providers.primary

        async def at_target(source: Source) -> LightBlock:
            return await self._blocks.at(source, target.height, as_told=True)

        if not is_invalid:
            with suppress(type(error)):  # the same error, raised below
                return await self._providers.replace_primary(
                    error, at_target, lambda block: block.hash() == target.hash()
                )
        if self._providers.primary is blamed:
            # Its own newest header, because a made-up target may lie above the end of the chain.
            await self._providers.replace_primary(error, lambda source: source.signed_header(None))
        raise error

    async def _in_time(self, error: DllmError, trusted: LightBlock) -> None:
        """A header from the future: our clock is wrong, or the primary lies. A witness that shows none takes its place.

        The old primary stays as a witness, because it may be the clock after all.
        """
        witnesses = self._providers.witnesses
        async with aclosing(as_answered(witnesses, lambda source: source.signed_header(None))) as answers:
            async for witness, tip in answers:
                if isinstance(tip, DllmError) or tip.header.height < trusted.height:
                    continue
                drift_ns, now = self._options.clock_drift_ns, self._clock.now()
                if is_not_from_the_future(tip.header, drift_ns, now) is None:
                    self._providers.promote(witness, error.message, keep=True)
                    return

    async def _walked_back(self, height: int, above: Header) -> Header:
        primary = self._providers.primary

        async def fetch(at: int) -> Header:
            return (await primary.signed_header(at)).header

        return await walk_backwards(height, above, fetch, self._options.chain_id)
