"""Opening a leg to a provider of a session's route, by keys and endpoints that are proved now."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dllm_chat.session.leg import LegFailed, OpenLeg
from dllm_chat.session.saved import SavedSession
from dllm_protocol.session.client import ClientLeg
from dllm_protocol.session.handshake import ClientHandshake
from dllm_protocol.session.ledger import Ledger
from light_node.channel.client import open_channel

if TYPE_CHECKING:
    from dllm_chat.session.conversation import Chain

CHANNEL_TIMEOUT_MS = 5_000


async def dial(
    chain: Chain,
    saved: SavedSession,
    ledger: Ledger,
    provider: bytes,
    *,
    store: Callable[[], None],
    known: Sequence[int] = (),
    secret: bytes | None = None,
    timeout_ms: int = CHANNEL_TIMEOUT_MS,
) -> OpenLeg:
    """Dial, prove the provider's key, claim the session.

    Args:
        store: see `OpenLeg`.
        known: see `OpenLeg`.
        secret: what the transcripts of channels start from that are to have them in common; else one of its own.

    Raises:
        ChannelRefused, NetworkUnreachable, TimedOut, MalformedBytes
    """
    proved = await chain.reads.provider(provider)
    if proved is None:
        raise LegFailed(f"provider {provider.hex()} is not registered any more")
    handshake = ClientHandshake(
        chain_id=chain.chain_id,
        provider=provider,
        session=saved.route.session,
        service_key=proved.service_key,
        sealing_key=proved.sealing_key,
        ephemeral_seed=secrets.token_bytes(32),
    )
    leg = ClientLeg(
        handshake,
        provider=provider,
        service_key=proved.service_key,
        session_key=chain.purse.session_key(saved.key_index),
        ledger=ledger,
        transcript_secret=secret or secrets.token_bytes(32),
    )
    channel = await open_channel(proved.endpoints, leg, timeout_ms=timeout_ms)
    return OpenLeg(channel, leg, store, known)
