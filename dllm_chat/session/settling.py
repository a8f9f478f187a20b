"""Ending a session by agreement: every provider of its route acknowledges that nothing comes after the last voucher.

With these acks the chain settles at once. Who does not answer, or holds a voucher that gives it more, is waited for
by the chain: it has the grace to claim.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace

from dllm_chat.session.conversation import Chain
from dllm_chat.session.dialing import dial
from dllm_chat.session.leg import OpenLeg
from dllm_chat.session.saved import SavedSession
from dllm_protocol.assignment import leg_entries
from dllm_protocol.errors import DllmError

AGREE_TIMEOUT_MS = 2_000


async def agree_on_the_end(chain: Chain, saved: SavedSession) -> SavedSession:
    """Sign the final voucher and gather its acks, if all providers of the route are there for it.

    Returns the session as it is stored then. Without everybody's ack nothing is lost but time.
    """
    ledger = chain.sessions.ledger(saved)
    if ledger.is_final:
        return saved  # an earlier try signed it; there is no second one

    def current() -> SavedSession:
        return replace(saved, ledger=ledger.state)

    def store() -> None:
        chain.sessions.store.save(current())

    secret = secrets.token_bytes(32)
    dialled = await asyncio.gather(
        *(
            dial(chain, saved, ledger, provider, store=store, secret=secret, timeout_ms=AGREE_TIMEOUT_MS)
            for provider in leg_entries(saved.route)
        ),
        return_exceptions=True,
    )
    legs = [leg for leg in dialled if isinstance(leg, OpenLeg)]
    try:
        for outcome in dialled:
            if isinstance(outcome, BaseException) and not isinstance(outcome, DllmError):
                raise outcome
        if len(legs) == len(dialled):
            await asyncio.gather(*(_acknowledged(leg) for leg in legs))
            store()
    finally:
        await asyncio.gather(*(leg.close("the session ends") for leg in legs))
    return current()


async def _acknowledged(leg: OpenLeg) -> bool:
    """Whether the provider acknowledged; one that refuses has the chain's grace to say why."""
    try:
        async with asyncio.timeout(AGREE_TIMEOUT_MS / 1000):
            await leg.end_session()
    except (DllmError, TimeoutError):
        return False
    return True
