"""Noticing a primary that stands still: the witnesses' heights reveal it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from dllm_protocol.block import SignedHeader
from dllm_protocol.header import Header
from light_node.clock import Clock
from light_node.errors import SourceTimedOut
from light_node.providers.asking import as_answered
from light_node.providers.events import EventKind, Journal
from light_node.providers.providers import Providers
from light_node.source import Source

LOOK_EVERY_S = 10.0
LOOK_TIMEOUT_S = 3.0
NS_PER_S = 1_000_000_000


class StallWatch:
    """Looks at the witnesses' heights now and then, while the primary shows nothing new."""

    def __init__(self, providers: Providers, clock: Clock, lag_ns: int, journal: Journal) -> None:
        """Prepare.

        Args:
            lag_ns: how long a node may take to show a block that others have.
        """
        self._providers = providers
        self._clock = clock
        self._lag_ns = lag_ns
        self._journal = journal
        self._looked_at_s: float | None = None

    async def leader(self, trusted: Header) -> tuple[Source, SignedHeader] | None:
        """Return a witness that shows a block above the verified one that is old enough for everybody to have it.

        What it shows is not verified. None where there is no such witness, or where it is too early to look again.
        """
        now_ns, now_s = self._clock.now().to_ns(), self._clock.monotonic_s()
        too_early = self._looked_at_s is not None and now_s - self._looked_at_s < LOOK_EVERY_S
        if not self._providers.witnesses or too_early or now_ns - trusted.time.to_ns() < self._lag_ns:
            return None
        self._looked_at_s = now_s

        async def look(witness: Source) -> SignedHeader | None:
            try:
                async with asyncio.timeout(LOOK_TIMEOUT_S):
                    tip = await witness.signed_header(None)
                    self._providers.saw(witness, tip.header.height)
                    if tip.header.height <= trusted.height:
                        return None
                    first = await witness.signed_header(trusted.height + 1)
            except TimeoutError as error:
                raise SourceTimedOut(f"{witness.name} did not answer within {LOOK_TIMEOUT_S:g} s") from error
            return tip if first.header.time.to_ns() + self._lag_ns <= now_ns else None

        async with aclosing(as_answered(self._providers.witnesses, look)) as answers:
            async for witness, tip in answers:
                if isinstance(tip, SignedHeader):
                    return witness, tip
        return None

    def replace(self, witness: Source, height: int, theirs: int) -> None:
        """The witness's lead is verified: it takes the place of the primary, which stays as a witness."""
        stalled = self._providers.primary
        words = f"{stalled.name} stands still at {height}, {witness.name} is at {theirs}"
        self._journal.note(EventKind.PRIMARY_STALLED, stalled.name, words)
        self._providers.promote(witness, words, keep=True)
