"""The light client: from a trust root to verified headers, as fresh as the source allows, and says how fresh."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from dllm_protocol.block import LightBlock, SignedHeader
from dllm_protocol.errors import DllmError, NetworkUnreachable, TimedOut
from dllm_protocol.header import Header
from dllm_protocol.validator_set import ValidatorSet
from dllm_protocol.verification.options import CLOCK_DRIFT_NS, TRUSTING_PERIOD_NS, VerificationOptions
from dllm_protocol.verification.trust_level import ONE_THIRD, TrustLevel
from dllm_protocol.verification.verifier import Invalid, TrustedState, verify_root
from light_node.bisection import refusal, skip_forwards, walk_backwards
from light_node.clock import Clock
from light_node.errors import ForkDetected, NotYetProvable, RootExpired, RootMismatch
from light_node.source import Source
from light_node.trust_store import TrustStore

WALK_RATHER_THAN_SKIP = 16
"""Below this distance to a stored header above, the hash chain is cheaper than signatures."""
POLL_FIRST_S = 0.02
POLL_MAX_S = 0.5
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


class TrustStatus(StrEnum):
    """One word for how much the node's answers are worth now."""

    VERIFIED = "verified"
    """The tip that the source shows is verified."""
    TRUSTING = "trusting"
    """There is valid trust, but the tip is not verified yet."""
    OFFLINE = "offline"
    """The source does not answer, or nothing trusted is young enough."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """What the light node says of itself."""

    state: TrustStatus
    height: int
    """Highest verified height; 0 when there is none."""
    hash: bytes
    """Hash of that header; empty when there is none."""
    lag_blocks: int
    """How many blocks the source's tip is ahead of that header, as far as it was seen."""
    root_age_s: int
    """Seconds since that header's time; trust rests on it."""
    expires_in_s: int
    """Seconds until that trust expires; negative once it has."""
    problem: str
    """Why it is not verified; empty when it is."""


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
    ) -> None:
        """Prepare; nothing is asked before the first `sync` or `verified_header`."""
        self.chain_id = chain_id
        self.trust_options = trust_options
        self.primary = primary
        self.witnesses = tuple(witnesses)
        self.clock = clock
        self._store = store
        self._options = VerificationOptions(
            chain_id, trust_options.period_ns, trust_options.clock_drift_ns, trust_options.trust_level
        )
        self._lock = asyncio.Lock()
        self._latest: LightBlock | None = None
        self._root_checked = False
        self._tip_seen = 0
        self._reachable = True
        self._problem = "not synced yet"

    async def sync(self) -> Header:
        """Verify the source's tip and return the highest verified header.

        Raises:
            HeaderRefused, RootExpired, RootMismatch, ForkDetected, or what the source raises.
        """
        async with self._lock:
            try:
                trusted = await self._trusted()
                tip = await self.primary.signed_header(None)
                self._tip_seen = tip.header.height
                if tip.header.height > trusted.height:
                    block = await self._completed(self.primary, tip)
                    trusted = await self._believe(block, trusted)
                elif tip.header.height == trusted.height and tip.header.hash() != trusted.hash():
                    raise _fork(
                        trusted.height, "trusted", trusted.hash(), self.primary.name, tip.header.hash()
                    )
            except DllmError as error:
                self._problem = error.message
                self._reachable = not isinstance(error, NetworkUnreachable | TimedOut)
                raise
            self._reachable = True
            self._problem = ""
            if self._tip_seen < trusted.height:
                tips = f"its tip is {self._tip_seen}, verified is {trusted.height}"
                self._problem = f"{self.primary.name} is behind: {tips}"
            return trusted.header

    async def verified_header(self, height: int) -> Header:
        """Return the header at a height, verified: stored, skipped to, or walked back to.

        Raises:
            HeightUnavailable: the source does not have it (yet).
            And what `sync` raises.
        """
        async with self._lock:
            latest = await self._trusted()
            if height == latest.height:
                return latest.header
            if height > latest.height:
                signed = await self.primary.signed_header(height)
                return (await self._believe(await self._completed(self.primary, signed), latest)).header
            return await self._between(height, latest)

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
            block = await self._fetched_root(options)
            old = self._store.latest()
            if old is not None:
                if old.height > block.height:
                    raise RootMismatch(
                        f"the new root {block.height} is below the trusted header {old.height}"
                    )
                found = block.header
                if old.height < block.height:
                    found = await walk_backwards(
                        old.height, block.header, self._header_of_primary, self.chain_id
                    )
                if found.hash() != old.hash():
                    raise RootMismatch(
                        f"the new root leads back to header {found.hash().hex()} at {old.height}, "
                        f"trusted is {old.hash().hex()}"
                    )
            self._accept_root(block, options)
            return block.header

    def status(self) -> Freshness:
        """Return how fresh and how sure this client is, without asking anybody."""
        latest = self._latest or self._store.latest()
        if latest is None:
            return Freshness(TrustStatus.OFFLINE, 0, b"", 0, 0, 0, self._problem)
        age_ns = self.clock.now().to_ns() - latest.header.time.to_ns()
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
        )

    async def close(self) -> None:
        """Let go of sources and store."""
        for source in (self.primary, *self.witnesses):
            await source.close()
        self._store.close()

    async def _trusted(self) -> LightBlock:
        """The highest trusted block: in memory, from the store (another process may have gone on), or the root."""
        if not self._root_checked:
            await self._check_root()
            self._root_checked = True
        stored = self._store.latest() if self._latest is None else self._latest
        if stored is None:
            stored = await self._fetched_root(self.trust_options)
            self._store.add(stored)
        self._latest = stored
        return stored

    async def _check_root(self) -> None:
        """A root once trusted is never replaced by one that the store contradicts."""
        known = self._store.at(self.trust_options.height)
        if known is not None and known.hash() != self.trust_options.hash:
            raise RootMismatch(
                f"trust root at {self.trust_options.height} is {self.trust_options.hash.hex()}, "
                f"stored there is {known.hash().hex()}",
                hint="this home trusts another chain: use another home, or the right root",
            )
        latest = self._store.latest()
        if latest is None or known is not None or latest.height >= self.trust_options.height:
            return
        if self._is_expired(latest.header):
            age_s = (self.clock.now().to_ns() - latest.header.time.to_ns()) // NS_PER_S
            raise RootExpired(
                f"trusted header {latest.height} of {latest.header.time} is {age_s} s old, "
                f"the trusting period is {self._options.trusting_period_ns // NS_PER_S} s",
                hint="confirm a younger root with two sources and refresh it",
            )
        # The root lies ahead of what is trusted: it counts only if what is trusted leads to it.
        root = await self._fetched_root(self.trust_options)
        await self._believe(root, latest)

    async def _fetched_root(self, options: TrustOptions) -> LightBlock:
        signed = await self.primary.signed_header(options.height)
        found = signed.header.hash()
        if found != options.hash:
            raise RootMismatch(
                f"trust root at {options.height} is {options.hash.hex()}, {self.primary.name} shows {found.hex()}",
                hint="the node is on another chain, or the root is wrong",
            )
        block = await self._completed(self.primary, signed)
        verdict = verify_root(block, self._options, self.clock.now())
        if isinstance(verdict, Invalid):
            raise refusal(verdict.reason.rule, verdict.reason.message)
        await self._compare_with_witnesses(block, None)
        return block

    def _accept_root(self, block: LightBlock, options: TrustOptions) -> None:
        self._store.replace_all(block)
        self.trust_options = options
        self._latest = block
        self._root_checked = True

    async def _believe(self, target: LightBlock, trusted: LightBlock) -> LightBlock:
        """Verify a target above the trusted block, compare with the witnesses, store it."""
        await skip_forwards(
            target, TrustedState.of(trusted), self._block_of_primary, self._options, self.clock.now
        )
        await self._compare_with_witnesses(target, trusted)
        self._store.add(target)
        if self._latest is None or target.height > self._latest.height:
            self._latest = target
        return target

    async def _between(self, height: int, latest: LightBlock) -> Header:
        above = self._store.at_or_above(height) or latest
        if above.height == height:
            return above.header
        below = self._store.at_or_below(height)
        far = above.height - height > WALK_RATHER_THAN_SKIP
        if below is not None and far and not self._is_expired(below.header):
            signed = await self.primary.signed_header(height)
            return (await self._believe(await self._completed(self.primary, signed), below)).header
        return await walk_backwards(height, above.header, self._header_of_primary, self.chain_id)

    def _is_expired(self, header: Header) -> bool:
        return header.time.to_ns() + self._options.trusting_period_ns <= self.clock.now().to_ns()

    async def _header_of_primary(self, height: int) -> Header:
        return (await self.primary.signed_header(height)).header

    async def _block_of_primary(self, height: int) -> LightBlock:
        return await self._completed(self.primary, await self.primary.signed_header(height))

    async def _completed(self, source: Source, signed: SignedHeader) -> LightBlock:
        """Add both validator sets; a set that is known by its hash is not fetched again."""
        header = signed.header
        validators = await self._validators(source, header.height, header.validators_hash)
        if header.next_validators_hash == header.validators_hash:
            return LightBlock(signed, validators, validators)
        following = await self._validators(source, header.height + 1, header.next_validators_hash)
        return LightBlock(signed, validators, following)

    async def _validators(self, source: Source, height: int, set_hash: bytes) -> ValidatorSet:
        latest = self._latest
        if latest is not None and latest.header.next_validators_hash == set_hash:
            return latest.next_validators
        return self._store.validators(set_hash) or await source.validators(height)

    async def _compare_with_witnesses(self, block: LightBlock, trusted: LightBlock | None) -> None:
        """Every witness that answers must show the same header; one that does not answer is passed over.

        Another header only means a fork when it can be verified from the same trusted block. A witness that
        shows what cannot be verified is asked no more, or anybody could stop a client with a made-up header.
        """
        answers = await asyncio.gather(
            *(one.signed_header(block.height) for one in self.witnesses), return_exceptions=True
        )
        for witness, answer in zip(self.witnesses, answers, strict=True):
            if isinstance(answer, SignedHeader):
                if answer.header.hash() == block.hash():
                    continue
                if trusted is None or await self._is_verified_by(witness, answer, trusted):
                    raise _fork(
                        block.height, self.primary.name, block.hash(), witness.name, answer.header.hash()
                    )
                self.witnesses = tuple(one for one in self.witnesses if one is not witness)
            elif not isinstance(answer, DllmError):
                raise answer

    async def _is_verified_by(self, witness: Source, shown: SignedHeader, trusted: LightBlock) -> bool:
        async def fetch(height: int) -> LightBlock:
            return await self._completed(witness, await witness.signed_header(height))

        try:
            block = await self._completed(witness, shown)
            await skip_forwards(block, TrustedState.of(trusted), fetch, self._options, self.clock.now)
        except DllmError:
            return False
        return True


def _fork(height: int, one: str, one_hash: bytes, other: str, other_hash: bytes) -> ForkDetected:
    return ForkDetected(
        f"height {height}: {one} has header {one_hash.hex()}, {other} has {other_hash.hex()}",
        hint="one of them lies, or the chain forked: do not send anything before it is known which",
    )
