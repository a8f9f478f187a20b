"""Getting whole light blocks from a node; nothing of them is believed here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dllm_protocol.block import LightBlock, SignedHeader
from dllm_protocol.validator_set import ValidatorSet
from light_node.source import Source

KnownSet = Callable[[bytes], ValidatorSet | None]


class LightBlocks:
    """Adds validator sets to signed headers."""

    def __init__(self, known: KnownSet) -> None:
        """Prepare.

        Args:
            known: a validator set by its hash, where it was verified before; it is not fetched again.
        """
        self._known = known

    async def at(self, source: Source, height: int | None, *, as_told: bool = False) -> LightBlock:
        """Return a node's light block at a height, or its newest one.

        Args:
            as_told: fetch the block's own set even where it is known, because proposer priorities change from height
                to height and are compared between nodes.

        Raises:
            What the source raises.
        """
        if not as_told or height is None:
            return await self.completed(source, await source.signed_header(height), as_told=as_told)
        # Both are wanted whatever the header says, so one need not wait for the other.
        signed, told = await asyncio.gather(source.signed_header(height), source.validators(height))
        return await self._with(source, signed, told)

    async def completed(self, source: Source, signed: SignedHeader, *, as_told: bool = False) -> LightBlock:
        """Add both validator sets to a signed header; see `at`."""
        return await self._with(
            source, signed, None if as_told else self._known(signed.header.validators_hash)
        )

    async def _with(self, source: Source, signed: SignedHeader, own: ValidatorSet | None) -> LightBlock:
        header = signed.header
        same = header.next_validators_hash == header.validators_hash
        following = own if same else self._known(header.next_validators_hash)
        if own is not None and following is not None:
            return LightBlock(signed, own, following)
        if same:
            own = await source.validators(header.height)
            return LightBlock(signed, own, own)
        told, told_next = await asyncio.gather(
            self._unless_known(own, source, header.height),
            self._unless_known(following, source, header.height + 1),
        )
        return LightBlock(signed, told, told_next)

    async def _unless_known(self, known: ValidatorSet | None, source: Source, height: int) -> ValidatorSet:
        return await source.validators(height) if known is None else known
