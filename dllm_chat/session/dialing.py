"""Opening a leg to a provider of a session's route, by keys and endpoints that are proved now."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from dllm_chat.session.leg import LegFailed, OpenLeg
from dllm_chat.session.saved import SavedSession
from dllm_chat.session.stage_leg import StageLeg
from dllm_chat.session.token_log import TokenLog
from dllm_protocol.assignment import leg_entries
from dllm_protocol.session.client import ClientLeg
from dllm_protocol.session.handshake import ClientHandshake
from dllm_protocol.session.ledger import Ledger
from dllm_protocol.session.transcript import RowLabel, held_digest
from light_node.channel.client import Channel, open_channel

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
    log: TokenLog | None = None,
    secret: bytes | None = None,
    timeout_ms: int = CHANNEL_TIMEOUT_MS,
) -> OpenLeg:
    """Dial, prove the provider's key, claim the session.

    Args:
        store: see `OpenLeg`.
        log: see `OpenLeg`.
        secret: what the transcripts of channels start from that are to have them in common; else one of its own.

    Raises:
        ChannelRefused, NetworkUnreachable, TimedOut, MalformedBytes
    """
    channel = await _open(chain, saved, ledger, provider, secret, timeout_ms)
    return OpenLeg(channel, channel.leg, store, log)


async def dial_stage(
    chain: Chain,
    saved: SavedSession,
    ledger: Ledger,
    provider: bytes,
    *,
    log: TokenLog,
    clock_s: Callable[[], float],
    timeout_ms: int = CHANNEL_TIMEOUT_MS,
) -> StageLeg:
    """The same for a stage of several.

    Args:
        log: what the stage may still hold rows of.
        clock_s: monotonic seconds.

    Raises:
        as `dial`
    """
    channel = await _open(chain, saved, ledger, provider, None, timeout_ms)
    entry, _ = leg_entries(saved.route)[provider]
    stage = StageLeg(channel, channel.leg, entry.end_layer - entry.first_layer, clock_s)
    held = log.ids[: channel.ready.held_rows]
    if held:
        wanted = held_digest(held) if entry.first_layer == 0 else RowLabel(log.secret).of(held)
        stage.rows = len(held) if channel.ready.held_digest == wanted else 0
    return stage


async def _open(
    chain: Chain,
    saved: SavedSession,
    ledger: Ledger,
    provider: bytes,
    secret: bytes | None,
    timeout_ms: int,
) -> Channel:
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
    return await open_channel(proved.endpoints, leg, timeout_ms=timeout_ms)
