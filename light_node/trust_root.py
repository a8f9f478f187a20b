"""Trust roots: a header that a person decided to trust, how it is taken, and how it is renewed."""

from __future__ import annotations

from dataclasses import dataclass

from dllm_protocol.block import LightBlock
from dllm_protocol.verification.options import CLOCK_DRIFT_NS, TRUSTING_PERIOD_NS, VerificationOptions
from dllm_protocol.verification.trust_level import ONE_THIRD, TrustLevel
from dllm_protocol.verification.verifier import Invalid, verify_root
from light_node.bisection import refusal
from light_node.clock import Clock
from light_node.detector import Detector
from light_node.errors import RootExpired, RootMismatch
from light_node.providers.providers import Providers
from light_node.trust_store import TrustStore
from light_node.walks import Walks

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class TrustOptions:
    """A header that a person decided to trust, and for how long trust lasts."""

    height: int
    hash: bytes
    """32 bytes."""
    period_ns: int = TRUSTING_PERIOD_NS
    clock_drift_ns: int = CLOCK_DRIFT_NS
    trust_level: TrustLevel = ONE_THIRD
    witnesses_expected: bool = False
    """Whether being without a witness is worth a warning; a chain of one's own machine has none to show."""


class Roots:
    """Takes and renews the trust root of one client."""

    def __init__(
        self,
        providers: Providers,
        walks: Walks,
        detector: Detector,
        options: VerificationOptions,
        clock: Clock,
    ) -> None:
        """Prepare; nothing is asked."""
        self._providers = providers
        self._walks = walks
        self._detector = detector
        self._options = options
        self._clock = clock

    async def checked(self, options: TrustOptions, store: TrustStore) -> tuple[LightBlock, LightBlock] | None:
        """Hold a root against what is stored: one that was trusted is never replaced by one that contradicts it.

        Returns:
            Where the root lies ahead of what is stored: its block, and the newest stored one. It counts only if the
            latter leads to it.

        Raises:
            RootMismatch, RootExpired
        """
        known = store.at(options.height)
        if known is not None and known.hash() != options.hash:
            raise RootMismatch(
                f"trust root at {options.height} is {options.hash.hex()}, stored there is {known.hash().hex()}",
                hint="this home trusts another chain: use another home, or the right root",
            )
        latest = store.latest()
        if latest is None or known is not None or latest.height >= options.height:
            return None
        age_ns = self._clock.now().to_ns() - latest.header.time.to_ns()
        if age_ns >= self._options.trusting_period_ns:
            raise RootExpired(
                f"trusted header {latest.height} of {latest.header.time} is {age_ns // NS_PER_S} s old, "
                f"the trusting period is {self._options.trusting_period_ns // NS_PER_S} s",
                hint="renew it against two sources that are not the same: dllm light trust refresh",
            )
        return await self.fetched(options), latest

    async def fetched(self, options: TrustOptions) -> LightBlock:
        """Return the root's block: its hash is the one trusted, its own validators signed it, no witness contradicts.

        Raises:
            RootMismatch, RootExpired, HeaderRefused, ForkDetected, and what the nodes raise.
        """
        block = await self._walks.at(options.height)
        if block.hash() != options.hash:
            shown = f"{self._providers.primary.name} shows {block.hash().hex()}"
            raise RootMismatch(
                f"trust root at {options.height} is {options.hash.hex()}, {shown}",
                hint="the node is on another chain, or the root is wrong",
            )
        verdict = verify_root(block, self._options, self._clock.now())
        if isinstance(verdict, Invalid):
            raise refusal(verdict.reason, block.height)
        await self._detector.check_root(block)
        return block

    async def refreshed(self, options: TrustOptions, old: LightBlock | None) -> LightBlock:
        """Return the block of a younger root that leads back by hashes to what was trusted.

        Raises:
            RootMismatch: it does not, or is not younger.
            And what `fetched` raises.
        """
        block = await self.fetched(options)
        if old is None:
            return block
        if old.height > block.height:
            raise RootMismatch(f"the new root {block.height} is below the trusted header {old.height}")
        found = block.header
        if old.height < block.height:
            found = await self._walks.backwards(old.height, block.header)
        if found.hash() != old.hash():
            raise RootMismatch(
                f"the new root leads back to header {found.hash().hex()} at {old.height}, "
                f"trusted is {old.hash().hex()}"
            )
        return block
