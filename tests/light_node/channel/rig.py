"""A client's leg and a provider's ends for tests: real keys, a real route, no chain."""

from __future__ import annotations

from dataclasses import dataclass, field

from dllm_protocol.assignment import leg_entries, route_hash, session_id_of
from dllm_protocol.messages import MAX_FRAME_BYTES
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.pricing import RowPrices
from dllm_protocol.records import Route, RouteStage
from dllm_protocol.sealing import SealingKey
from dllm_protocol.session.acceptance import legs_of
from dllm_protocol.session.client import ClientLeg
from dllm_protocol.session.handshake import ClientHandshake, ProviderHandshake
from dllm_protocol.session.ledger import Ledger, fresh_state
from dllm_protocol.session.provider import (
    Claimed,
    DecodeRows,
    ProviderLeg,
    Reply,
    Standing,
    StoreVoucher,
    Terms,
)
from dllm_protocol.signing import SeedSigner
from light_node.channel.link import Link

CHAIN = "test-00000000"
SERVICE, SEALING = SeedSigner(b"\2" * 32), SealingKey(b"\3" * 32)
ENTRY = BookEntry(b"\1" * 20, b"\x65" * 20, 0, 4, RowPrices(100, 1000, 1000, 100), 8, 500_000)
SESSION_KEY = SeedSigner(b"\1" * 32)
SESSION = session_id_of(b"\7" * 20, SESSION_KEY.public_key)
ROUTE = Route(SESSION, "m", b"\4" * 32, 1, b"\5" * 32, b"\6" * 32, (), (RouteStage(ENTRY, None),))
SEVEN_LOGITS = ([9, 8, 7], [1.5, 0.5, 0.25], 2.0)


def make_leg(seed: int = 0x11, *, service_key: bytes = SERVICE.public_key) -> ClientLeg:
    """A client's leg of the one session, with an ephemeral key of its own."""
    ledger = Ledger(
        chain_id=CHAIN,
        route=ROUTE,
        session_key=SESSION_KEY,
        deposit_udllm=10**9,
        community_share_ppm=100_000,
        state=fresh_state(SESSION),
    )
    handshake = ClientHandshake(
        chain_id=CHAIN,
        provider=ENTRY.provider,
        session=SESSION,
        service_key=service_key,
        sealing_key=SEALING.public_key,
        ephemeral_seed=bytes([seed]) * 32,
    )
    return ClientLeg(
        handshake,
        provider=ENTRY.provider,
        service_key=service_key,
        session_key=SESSION_KEY,
        ledger=ledger,
        transcript_secret=b"\x22" * 32,
    )


@dataclass
class Echo:
    """A provider that answers each row with the same three logits."""

    service: SeedSigner = SERVICE
    ended: list[str] = field(default_factory=list)

    async def serve(self, link: Link) -> None:
        """Serve one connection to its end."""
        try:
            await self._serve(link)
        finally:
            self.ended.append(link.name)

    async def _serve(self, link: Link) -> None:
        first = await link.receive(2000)
        theirs = ProviderHandshake(first, chain_id=CHAIN, provider=ENTRY.provider, sealing_key=SEALING)
        answer, stream, hash_of_handshake = theirs.answer(self.service, b"\x33" * 32)
        link.allow(MAX_FRAME_BYTES)
        await link.send(answer)
        own, role = leg_entries(ROUTE)[ENTRY.provider]
        legs = legs_of(ROUTE)
        terms = Terms(
            CHAIN, SESSION, SESSION_KEY.public_key, route_hash(ROUTE), 10**9, 100_000, own, role, legs
        )
        leg = ProviderLeg(terms, Standing(), stream, hash_of_handshake, self.service)
        while True:
            for order in leg.receive(await link.receive()):
                match order:
                    case Claimed():
                        await link.send(
                            leg.ready(context_rows=512, held_rows=0, held_digest=bytes(32), top_k=64)
                        )
                    case StoreVoucher():
                        await link.send(leg.acknowledge())
                    case DecodeRows():
                        position = order.first_position + len(order.ids) - 1
                        await link.send(leg.output(order.request, position, *SEVEN_LOGITS, last=True))
                    case Reply():
                        await link.send(leg.reply(order))
