"""A client that asks a worker over a real channel, with a ledger of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllm_protocol.encoding import Record
from dllm_protocol.messages import (
    OUTPUTS_LAST,
    ROW_KEPT,
    ROW_PROMPT,
    Acknowledge,
    Done,
    Output,
    Refused,
    unpack_ids,
)
from dllm_protocol.session.client import ClientLeg
from dllm_protocol.session.handshake import ClientHandshake
from dllm_protocol.session.ledger import Ledger, fresh_state
from dllm_protocol.signing import SeedSigner
from light_node.channel.client import Channel, open_channel
from local_worker.chain import Chain
from tests.local_worker.doubles import ChainDouble

TIMEOUT_MS = 20_000


@dataclass
class Client:
    """One session of one client."""

    chain: Chain
    provider: bytes
    key: SeedSigner
    session: bytes
    ledger: Ledger
    connections: int = 0
    _channel: Channel | None = None

    @property
    def channel(self) -> Channel:
        """The newest channel."""
        assert self._channel is not None
        return self._channel

    @classmethod
    async def connect(
        cls,
        chain: ChainDouble,
        provider: bytes,
        seed: int,
        *,
        session: bytes | None = None,
        claims_with: SeedSigner | None = None,
    ) -> Client:
        """Open a session (or take one that is open) and a channel for it."""
        key = SeedSigner(bytes([seed]) * 32)
        session_id = session or chain.open_session(provider, key)
        record, route = chain.sessions[session_id]
        ledger = Ledger(
            chain_id=chain.chain_id,
            route=route,
            session_key=key,
            deposit_udllm=record.deposit_udllm,
            community_share_ppm=record.community_share_ppm,
            state=fresh_state(session_id),
        )
        client = cls(chain, provider, key, session_id, ledger)
        await client.reconnect(claims_with=claims_with)
        return client

    async def reconnect(self, *, claims_with: SeedSigner | None = None) -> None:
        """Open another channel for the session."""
        record = await self.chain.provider(self.provider)
        assert record is not None
        self.connections += 1
        seed = bytes([self.connections]) + self.key.public_key[1:]
        handshake = ClientHandshake(
            chain_id=self.chain.chain_id,
            provider=self.provider,
            session=self.session,
            service_key=record.service_key,
            sealing_key=record.sealing_key,
            ephemeral_seed=seed,
        )
        leg = ClientLeg(
            handshake,
            provider=self.provider,
            service_key=record.service_key,
            session_key=claims_with or self.key,
            ledger=self.ledger,
            transcript_secret=seed,
        )
        self._channel = await open_channel(record.endpoints, leg, timeout_ms=TIMEOUT_MS)

    async def send_decode(
        self, position: int, ids: Sequence[int], kind: int = ROW_PROMPT, outputs: int = OUTPUTS_LAST
    ) -> int:
        """Ask for rows; return the request's number."""
        request, frame = self.channel.leg.decode(position, ids, kind=kind, top_k=8, outputs=outputs)
        await self.channel.send(frame)
        return request

    async def answers(self, request: int) -> list[Record]:
        """Messages up to the end of a request, its Done or Refused included."""
        seen: list[Record] = []
        while True:
            for message in await self.channel.receive(TIMEOUT_MS):
                seen.append(message)
                if isinstance(message, Done | Refused) and message.request == request:
                    return seen

    async def ask(
        self, position: int, ids: Sequence[int], kind: int = ROW_PROMPT, outputs: int = OUTPUTS_LAST
    ) -> list[Output]:
        """Rows that must succeed."""
        messages = await self.answers(await self.send_decode(position, ids, kind, outputs))
        assert isinstance(messages[-1], Done), messages[-1]
        return [message for message in messages if isinstance(message, Output)]

    async def refused(self, position: int, ids: Sequence[int], kind: int = ROW_PROMPT) -> Refused:
        """Rows that must be refused."""
        messages = await self.answers(await self.send_decode(position, ids, kind))
        assert isinstance(messages[-1], Refused), messages[-1]
        return messages[-1]

    async def stream(self, position: int, token: int, count: int) -> list[int]:
        """Greedy tokens, one row at a time."""
        made: list[int] = []
        for offset in range(count):
            (output,) = await self.ask(position + offset, [token], ROW_KEPT)
            token = unpack_ids(output.ids)[0]
            made.append(token)
        return made

    async def seal(self) -> Acknowledge:
        """End the turn with a voucher and wait for its ack."""
        frame = self.channel.leg.seal_turn()
        assert frame is not None
        await self.channel.send(frame)
        (ack,) = await self.channel.receive(TIMEOUT_MS)
        assert isinstance(ack, Acknowledge)
        return ack
