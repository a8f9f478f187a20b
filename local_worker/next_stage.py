"""The next stage: a sealed link to it, measured once, over which hidden states go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dllm_protocol.encoding import Record
from dllm_protocol.errors import ChannelRefused, DllmError
from dllm_protocol.messages import FORM_ANY, FORM_BF16, FORM_F32, MAX_FRAME_BYTES
from dllm_protocol.records import Provider
from dllm_protocol.sealing import SealedStream
from dllm_protocol.session.handshake import ClientHandshake
from dllm_protocol.signing import Signer
from dllm_protocol.stage_link import (
    MAX_FILLER_BYTES,
    MAX_ROW_DATA_BYTES,
    Filled,
    Filler,
    HandedRows,
    StageGoodbye,
    StageLink,
    StageReady,
    make_stage_claim,
)
from light_node.channel.dialing import first_reply, first_that_answers
from light_node.channel.limits import ChannelLimits
from light_node.channel.link import Link
from local_worker.errors import NextStageFailed

DIAL_MS: Final = 5_000
ANSWER_MS: Final = 5_000
FOREVER_MS: Final = 1 << 31
FAST_BYTES_PER_S: Final = 12_500_000
"""From here on (100 Mbit/s) hidden states go as f32; slower links halve them. Within a machine no link is slow, however
busy the machine is as the link is measured."""


@dataclass(frozen=True, slots=True)
class StageDialing:
    """Whom to dial, as whom, for which session."""

    chain_id: str
    session: bytes
    own_provider: bytes
    service_key: Signer
    provider: bytes
    record: Provider
    """The provider's proved record."""
    width: int
    """Numbers of a hidden state."""
    form: int
    """A FORM_ constant."""
    ephemeral_seed: Callable[[], bytes]
    """32 random bytes, other ones at each call."""


async def claim_stage(link: Link, to: StageDialing, deadline: float, *, lane: bool = False) -> StageLink:
    """Make a handshake with the next stage, and claim to be the one before it.

    Args:
        lane: for a lane instead of a link.

    Raises:
        DllmError: why it does not take this stage.
    """
    handshake = ClientHandshake(
        chain_id=to.chain_id,
        provider=to.provider,
        session=to.session,
        service_key=to.record.service_key,
        sealing_key=to.record.sealing_key,
        ephemeral_seed=to.ephemeral_seed(),
    )
    answer = await first_reply(link, handshake.first_message, deadline)
    opened: tuple[SealedStream, bytes] = handshake.finish(answer)
    stream, hash_of_handshake = opened
    stage = StageLink(stream)
    link.allow(MAX_FRAME_BYTES)
    claim = make_stage_claim(to.service_key, to.own_provider, hash_of_handshake, lane=lane)
    await link.send(stage.claim(claim))
    ready, *more = stage.open(await link.receive(ANSWER_MS))
    if isinstance(ready, StageGoodbye):
        raise NextStageFailed(f"the next stage will not take rows: {ready.message}")
    if not isinstance(ready, StageReady) or more:
        raise ChannelRefused(
            f"the next stage answered the claim with {1 + len(more)} messages, {type(ready).__name__} first"
        )
    if ready.width != to.width:
        raise NextStageFailed(f"the next stage takes {ready.width} numbers a row, this one gives {to.width}")
    return stage


class NextStage:
    """A link that stands.

    Attributes:
        form: how hidden states go: FORM_F32 or FORM_BF16.
    """

    def __init__(self, link: Link, stage: StageLink, provider: bytes) -> None:
        self.provider = provider
        self.form = FORM_F32
        self.round_trip_us = 0
        self.bytes_per_s = 0
        self._link = link
        self._stage = stage
        self._watch: asyncio.Task[str] | None = None

    @classmethod
    async def dial(cls, to: StageDialing, limits: ChannelLimits) -> NextStage:
        """Connect, prove both sides to each other, measure the link.

        Raises:
            NextStageFailed: why there is no link.
        """
        try:
            return await first_that_answers(
                to.record.endpoints,
                lambda link, deadline: cls._claim(link, to, deadline),
                timeout_ms=DIAL_MS,
                limits=limits,
            )
        except NextStageFailed:
            raise
        except DllmError as error:
            raise NextStageFailed(f"the next stage is not reached: {error.message}") from error

    @classmethod
    async def _claim(cls, link: Link, to: StageDialing, deadline: float) -> NextStage:
        stage = await claim_stage(link, to, deadline)
        made = cls(link, stage, to.provider)
        await made._measure()
        made.form = to.form
        if to.form == FORM_ANY:
            fast = made.bytes_per_s >= FAST_BYTES_PER_S or link.is_local
            made.form = FORM_F32 if fast else FORM_BF16
        made._watch = asyncio.create_task(made._until_ended())
        return made

    async def _measure(self) -> None:
        """One small message there and back, then one large one."""
        small_s = await self._fill(1, 0)
        large_s = await self._fill(2, MAX_FILLER_BYTES)
        self.round_trip_us = round(small_s * 1e6)
        self.bytes_per_s = round(MAX_FILLER_BYTES / max(large_s - small_s, 1e-6))

    async def _fill(self, nonce: int, size: int) -> float:
        began_s = time.perf_counter()
        await self._link.send(self._stage.seal(Filler(nonce, bytes(size))))
        answer = self._stage.open(await self._link.receive(ANSWER_MS))
        if answer != (Filled(nonce),):
            raise ChannelRefused("the next stage did not answer a measurement")
        return time.perf_counter() - began_s

    @property
    def alive(self) -> bool:
        """Whether the link stands, as far as this machine knows."""
        return self._watch is not None and not self._watch.done()

    async def wait_ended(self) -> str:
        """Return when the link has ended: why, in words."""
        if self._watch is None:
            return "it never stood"
        return await asyncio.shield(self._watch)

    async def send(self, request: int, first_position: int, rows: int, form: int, data: bytes) -> None:
        """Hand rows on, in as many frames as they need.

        Raises:
            NextStageFailed
        """
        row_bytes = len(data) // rows
        each = max(1, MAX_ROW_DATA_BYTES // row_bytes)
        try:
            for first in range(0, rows, each):
                part = data[first * row_bytes : (first + each) * row_bytes]
                frame = HandedRows(request, first_position + first, len(part) // row_bytes, form, part)
                await self._link.send(self._stage.seal(frame))
        except DllmError as error:
            raise NextStageFailed(f"the next stage takes no rows: {error.message}") from error

    async def close(self) -> None:
        """Hang up."""
        self._link.abort()  # first: whoever closes may be cancelled, too
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def _until_ended(self) -> str:
        """Nothing comes back on a link but its end."""
        try:
            messages: tuple[Record, ...] = self._stage.open(await self._link.receive(FOREVER_MS))
        except DllmError as error:
            return error.message
        self._link.abort()
        goodbye = next((one for one in messages if isinstance(one, StageGoodbye)), None)
        return goodbye.message if goodbye else "it sent what a next stage does not send"
