"""New blocks as they are verified: a node's announcements only say when to look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from dllm_protocol.errors import DllmError, NetworkUnreachable, TimedOut
from light_node.proxy.errors import Unprovable
from light_node.proxy.proving import Proving

LOOK_S = 5.0
"""Without an announcement the tip is looked at this often: a node may be silent on purpose."""
RETRY_S = 1.0
OUTAGE_MAX_S = 120.0
CATCH_UP_MAX = 1_000


async def new_verified_heights(proving: Proving, after: int) -> AsyncIterator[int]:
    """Yield each height above `after`, as soon as its header is verified.

    Raises:
        Unprovable: so many blocks came at once that following them one by one makes no sense.
        VerificationFailed: a header was refused.
        NetworkUnreachable, TimedOut: nobody answered for `OUTAGE_MAX_S`.
    """
    clock = proving.client.clock
    last = after
    answered_s = clock.monotonic_s()
    announced = asyncio.Event()
    listener: asyncio.Task[None] | None = None
    try:
        while True:
            if listener is None or listener.done():
                listener = asyncio.create_task(_listen(proving, announced))
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await announced.wait()
            announced.clear()
            try:
                tip = (await proving.tip()).height
            except (NetworkUnreachable, TimedOut):
                if clock.monotonic_s() - answered_s > OUTAGE_MAX_S:
                    raise
                await clock.sleep(RETRY_S)
                continue
            answered_s = clock.monotonic_s()
            if tip - last > CATCH_UP_MAX:
                raise Unprovable(f"the tip went from {last} to {tip} at once", hint="subscribe again")
            for height in range(last + 1, tip + 1):
                yield height
            last = tip
    finally:
        if listener is not None:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)


async def _listen(proving: Proving, announced: asyncio.Event) -> None:
    """Set the event at each announcement, and once when they end."""
    with suppress(DllmError):  # the caller looks at the tip and hears of what is wrong there
        async for _ in proving.upstream.new_heights():
            announced.set()
    await proving.client.clock.sleep(RETRY_S)
    announced.set()
