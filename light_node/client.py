"""The light client: from a trust root to verified headers, as fresh as the source allows, and says how fresh."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from dllm_protocol.block import LightBlock, SignedHeader
from dllm_protocol.errors import DllmError, MalformedBytes, NetworkUnreachable, TimedOut, VerificationFailed
from dllm_protocol.header import Header
from dllm_protocol.validator_set import ValidatorSet
from dllm_protocol.verification.options import VerificationOptions
from light_node.clock import Clock
from light_node.comparison import MAX_BLOCK_LAG_NS, Comparer
from light_node.detector import Detector
from light_node.errors import ForkDetected, NotYetProvable
from light_node.examination import Examiner
from light_node.freshness import Freshness, PeerRole, PeerStatus, TrustStatus
from light_node.providers.events import Journal, LightEvent
from light_node.providers.faults import Fault, fault_of, is_from_the_future
from light_node.providers.light_blocks import LightBlocks
from light_node.providers.providers import Providers
from light_node.providers.stalls import StallWatch
from light_node.source import Source
from light_node.trust_root import Roots, TrustOptions
from light_node.trust_store import TrustStore
from light_node.walks import Walks

__all__ = [
    "Freshness",
    "LightClient",
    "LightEvent",
    "PeerRole",
    "PeerStatus",
    "TrustOptions",
    "TrustStatus",
]

WALK_RATHER_THAN_SKIP = 16
"""Below this distance to a stored header above, the hash chain is cheaper than signatures."""
POLL_FIRST_S = 0.02
POLL_MAX_S = 0.5
NS_PER_S = 1_000_000_000
ALONE = "one source only: nobody confirms what it shows"


T = TypeVar("T")


class LightClient:
    """Follows one chain through one primary source, with witnesses that are compared at every target."""

    def __init__(
        self,
        chain_id: str,
        trust_options: TrustOptions,
        store: TrustStore,
        primary: Source,
        witnesses: Sequence[Source] = (),
        *,
        clock: Clock,
        on_event: Callable[[LightEvent], None] | None = None,
        max_block_lag_ns: int = MAX_BLOCK_LAG_NS,
    ) -> None:
        """Prepare; nothing is asked before the first `sync` or `verified_header`.

        Args:
            on_event: hears at once of what `events` remembers; must not raise.
            max_block_lag_ns: how long an honest node may lag behind the others.
        """
        self.chain_id = chain_id
        self.trust_options = trust_options
        self.clock = clock
        self._store = store
        self._options = VerificationOptions(
            chain_id, trust_options.period_ns, trust_options.clock_drift_ns, trust_options.trust_level
        )
        self._journal = Journal(clock, on_event)
        self._providers = Providers(primary, witnesses, self._journal)
        self._blocks = LightBlocks(self._known_set)
        comparer = Comparer(self._blocks, self._options, clock, max_block_lag_ns)
        examiner = Examiner(self._providers, self._blocks, self._options, clock, self._journal)
        self._detector = Detector(self._providers, comparer, examiner, clock)
        self._stalls = StallWatch(self._providers, clock, max_block_lag_ns, self._journal)
        self._walks = Walks(self._providers, self._blocks, self._options, clock)
        self._roots = Roots(self._providers, self._walks, self._detector, self._options, clock)
        self._lock = asyncio.Lock()
        self._latest: LightBlock | None = None
        self._root_checked = False
        self._tip_seen = 0
        self._reachable = True
        self._problem = "not synced yet"

    @property
    def primary(self) -> Source:
        """The node that is asked now; another one takes its place when it fails."""
        return self._providers.primary

    @property
    def witnesses(self) -> tuple[Source, ...]:
        """The nodes that must show the same."""
        return self._providers.witnesses

    @property
    def events(self) -> tuple[LightEvent, ...]:
        """What was noticed about the nodes since this client was made, oldest first, at most 100."""
        return self._journal.events

    async def sync(self) -> Header:
        """Verify the source's tip and return the highest verified header.

        Raises:
            HeaderRefused, RootExpired, RootMismatch, ForkDetected, LightClientAttack, NoWitnessAgrees,
            NoWitnessLeft, PrioritiesDiverge, or what the source raises.
        """
        async with self._lock:
            try:
                return (await self._synced()).header
            except DllmError as error:
                self._problem = error.message
                if isinstance(error, VerificationFailed | MalformedBytes):
                    self._providers.refused(error.message)
                self._reachable = not isinstance(error, NetworkUnreachable | TimedOut)
                raise

    async def verified_header(self, height: int) -> Header:
        """Return the header at a height, verified: stored, skipped to, or walked back to.

        Raises:
            HeightUnavailable: the source does not have it (yet).
            And what `sync` raises.
        """
        async with self._lock:
            return await self._header_at(height)

    async def light_block(self, height: int) -> LightBlock:
        """Return the header at a height with its commit and both validator sets, all verified.

        Raises:
            See `verified_header`.
        """
        async with self._lock:
            header = await self._header_at(height)
            stored = (
                self._latest if self._latest and self._latest.height == height else self._store.at(height)
            )
            return stored or await self._walks.block_of(header)

    async def ask(self, question: Callable[[Source], Awaitable[T]]) -> T:
        """Ask the primary something that `question` checks; where that fails, a witness that does better takes over.

        Raises:
            What `question` raised for the primary, where no witness does better.
        """
        return await self._providers.ask(question)

    async def wait_for_header(self, height: int, timeout_s: float) -> Header:
        """Return the verified header at a height, waiting for the chain to get there.

        Raises:
            NotYetProvable: it did not in the time allowed.
        """
        deadline = self.clock.monotonic_s() + timeout_s
        poll_s = POLL_FIRST_S
        while True:
            tip = await self.sync()
            if tip.height >= height:
                return await self.verified_header(height)
            if self.clock.monotonic_s() >= deadline:
                raise NotYetProvable(
                    f"header {height} does not exist yet: the tip is {tip.height} after {timeout_s:g} s",
                    hint="try again when the chain has made another block",
                )
            await self.clock.sleep(poll_s)
            poll_s = min(2 * poll_s, POLL_MAX_S)

    async def refresh_root(self, options: TrustOptions) -> Header:
        """Take a younger trust root after the old one expired; it must link to what is trusted by hashes.

        The person has compared `options` with two sources that are not the same; the link is checked here.

        Raises:
            RootMismatch: the new root does not lead back to the header trusted so far.
        """
        async with self._lock:
            block = await self._roots.refreshed(options, self._store.latest())
            self._store.replace_all(block)
            self.trust_options = options
            self._latest = block
            self._root_checked = True
            return block.header

    def status(self) -> Freshness:
        """Return how fresh and how sure this client is, without asking anybody."""
        latest = self._latest or self._store.latest()
        peers, refused = self._providers.peers(), self._providers.last_refusal
        alone = self.trust_options.witnesses_expected and not self.witnesses
        warning = ALONE if alone else ""
        if latest is None:
            return Freshness(TrustStatus.OFFLINE, 0, b"", 0, 0, 0, self._problem, warning, peers, refused)
        age_ns = self._age_ns(latest.header)
        expires_ns = self._options.trusting_period_ns - age_ns
        if expires_ns <= 0 or not self._reachable:
            state = TrustStatus.OFFLINE
        else:
            state = TrustStatus.TRUSTING if self._problem else TrustStatus.VERIFIED
        return Freshness(
            state,
            latest.height,
            latest.hash(),
            max(0, self._tip_seen - latest.height),
            max(0, age_ns // NS_PER_S),
            expires_ns // NS_PER_S,
            self._problem,
            warning,
            peers,
            refused,
        )

    async def close(self) -> None:
        """Let go of sources and store."""
        await self._providers.close()
        self._store.close()

    async def _synced(self) -> LightBlock:
        trusted = await self._trusted()

        async def newest(source: Source) -> LightBlock | SignedHeader:
            tip = await source.signed_header(None)
            self._providers.saw(source, tip.header.height)
            if tip.header.height <= trusted.height:
                self._walks.require_known_signers(source, tip, trusted)
                return tip
            return await self._blocks.completed(source, tip, as_told=bool(self.witnesses))

        tip = await self._providers.ask(newest)
        self._tip_seen = tip.header.height
        problem = ""
        if isinstance(tip, LightBlock):
            trusted = await self._believe(tip, trusted)
        elif tip.header.height == trusted.height and tip.header.hash() != trusted.hash():
            raise _fork(trusted, self.primary.name, tip)
        elif (leader := await self._stalls.leader(trusted.header)) is not None:
            trusted = await self._led_by(*leader, trusted)
        elif self._tip_seen < trusted.height:
            tips = f"its tip is {self._tip_seen}, verified is {trusted.height}"
            problem = f"{self.primary.name} is behind: {tips}"
        self._reachable = True
        self._problem = problem
        return trusted

    async def _led_by(self, witness: Source, tip: SignedHeader, trusted: LightBlock) -> LightBlock:
        """The primary stands still while a witness goes on: verify what it shows, and let it take the place."""
        stalled = self.primary
        try:
            target = await self._blocks.completed(witness, tip, as_told=True)
            trace = await self._walks.forwards_of(witness, target, trusted)
        except DllmError as error:
            if fault_of(error) is Fault.NOT_THEIRS and not is_from_the_future(error):
                raise
            reason = f"{witness.name}: {error.message}"
            if fault_of(error) is Fault.LIE:
                self._providers.remove_if_spared({witness: reason})
            else:
                self._providers.ignored(witness, reason)
            return trusted
        self._tip_seen = target.height
        self._stalls.replace(witness, trusted.height, target.height)
        self._detector.waited_for(stalled, trusted.height)
        return await self._confirmed(trace)

    async def _header_at(self, height: int) -> Header:
        latest = await self._trusted()
        if height == latest.height:
            return latest.header
        if height > latest.height:
            return (await self._believe(await self._walks.at(height), latest)).header
        above = self._store.at_or_above(height) or latest
        if above.height == height:
            return above.header
        below = self._store.at_or_below(height)
        far = above.height - height > WALK_RATHER_THAN_SKIP
        if below is not None and far and self._age_ns(below.header) < self._options.trusting_period_ns:
            return (await self._believe(await self._walks.at(height), below)).header
        return await self._walks.backwards(height, above.header)

    async def _trusted(self) -> LightBlock:
        """The highest trusted block: in memory, from the store (another process may have gone on), or the root."""
        if not self._root_checked:
            ahead = await self._roots.checked(self.trust_options, self._store)
            if ahead is not None:
                await self._believe(*ahead)
            self._root_checked = True
        stored = self._store.latest() if self._latest is None else self._latest
        if stored is None:
            stored = await self._roots.fetched(self.trust_options)
            self._store.add(stored)
        self._latest = stored
        return stored

    async def _believe(self, target: LightBlock, trusted: LightBlock) -> LightBlock:
        """Verify a target above the trusted block, compare with the witnesses, store it."""
        return await self._confirmed(await self._walks.forwards(target, trusted))

    async def _confirmed(self, trace: Sequence[LightBlock]) -> LightBlock:
        await self._detector.check(trace)
        target = trace[-1]
        self._store.add(target)
        if self._latest is None or target.height > self._latest.height:
            self._latest = target
        return target

    def _age_ns(self, header: Header) -> int:
        return self.clock.now().to_ns() - header.time.to_ns()

    def _known_set(self, set_hash: bytes) -> ValidatorSet | None:
        latest = self._latest
        if latest is not None and latest.header.next_validators_hash == set_hash:
            return latest.next_validators
        return self._store.validators(set_hash)


def _fork(trusted: LightBlock, name: str, shown: SignedHeader) -> ForkDetected:
    return ForkDetected(
        f"height {trusted.height}: trusted has header {trusted.hash().hex()}, {name} has {shown.header.hash().hex()}",
        hint="one of them lies, or the chain forked: do not send anything before it is known which",
    )
