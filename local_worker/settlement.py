"""Turns vouchers into money: watches sessions on chain and claims when it is worth it or high time.

A voucher is claimed when enough is unclaimed, when the client vanished, when the session is closing with less than
ours, and when the worker stops. A session whose client stays silent is closed over, so that its place is free again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from dllm_protocol.actions import ClaimVoucher, CloseSession
from dllm_protocol.encoding import Record
from dllm_protocol.errors import DllmError
from dllm_protocol.records import SESSION_CLOSED, SESSION_CLOSING, SESSION_OPEN, Session
from dllm_protocol.voucher import SignedVoucher
from local_worker.chain import Chain
from local_worker.store import SessionRow, Store

_log = logging.getLogger(__name__)

SWEEP_SESSIONS = 64
LEAST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 5.0
RETRY_S = 30.0
LOOKS_PER_GRACE = 4
"""A session that begins to close is noticed well before its grace is over."""


@dataclass(frozen=True, slots=True)
class ClaimPolicy:
    """When a voucher is worth a transaction."""

    threshold_udllm: int = 500_000
    """This much unclaimed in one session is claimed at once."""
    vanished_ms: int = 60_000
    """A client that was away this long may not come back."""
    idle_close_ms: int = 24 * 3600 * 1000
    """A session whose client was away this long is closed over."""
    look_connected_s: float = 2.0
    look_owed_s: float = 5.0
    look_other_s: float = 60.0
    """How often a session's record is looked at: client here, money owed, neither."""


class Settlement:
    """The claims of one provider."""

    def __init__(
        self,
        *,
        chain: Chain,
        store: Store,
        provider: bytes,
        policy: ClaimPolicy,
        connected: Callable[[], frozenset[bytes]],
        on_look: Callable[[bytes], Awaitable[None]],
        on_closed: Callable[[bytes], None],
        now_ms: Callable[[], int],
    ) -> None:
        """Prepare.

        Args:
            connected: sessions whose client is here.
            on_look: awaited for each connected session that is looked at: its terms may have changed.
            on_closed: hears of each session that is over on chain.
        """
        self._chain = chain
        self._store = store
        self._provider = provider
        self._policy = policy
        self._connected = connected
        self._on_look = on_look
        self._on_closed = on_closed
        self._now_ms = now_ms
        self._due_ms: dict[bytes, int] = {}
        self._grace_look_s = chain.params.close_grace_ms / 1000 / LOOKS_PER_GRACE

    async def run(self) -> None:
        """Sweep at every announced block and every few seconds, for ever."""
        announced = asyncio.Event()
        listener = asyncio.create_task(self._listen(announced))
        try:
            while True:
                await self.sweep()
                await asyncio.sleep(LEAST_PAUSE_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(LONGEST_PAUSE_S, self._grace_look_s)):
                        await announced.wait()
                announced.clear()
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def sweep(self) -> None:
        """Look at every session that is due, and do what its record calls for."""
        now_ms = self._now_ms()
        rows = [row for row in await self._store.unsettled() if self._due_ms.get(row.session, 0) <= now_ms]
        for row in rows[:SWEEP_SESSIONS]:
            self._due_ms[row.session] = now_ms + int(1000 * self._look_s(row))
            try:
                if row.session in self._connected():
                    await self._on_look(row.session)
                await self._look_at(row, leaving=False)
            except DllmError as error:
                _log.warning("session %s: %s", row.session.hex()[:16], error.message)
                self._due_ms[row.session] = now_ms + int(1000 * RETRY_S)

    async def settle_all(self) -> None:
        """Claim everything that is worth its fee: the worker is about to stop."""
        for row in await self._store.unsettled():
            if not row.unclaimed_udllm:
                continue
            try:
                await self._look_at(row, leaving=True)
            except DllmError as error:
                _log.warning("session %s was not claimed: %s", row.session.hex()[:16], error.message)

    def _look_s(self, row: SessionRow) -> float:
        if row.session in self._connected():
            return min(self._policy.look_connected_s, self._grace_look_s)
        if row.unclaimed_udllm:
            return min(self._policy.look_owed_s, self._grace_look_s)
        return self._policy.look_other_s

    async def _look_at(self, row: SessionRow, *, leaving: bool) -> None:
        session = await self._proved(row.session)
        if session is None or session.status == SESSION_CLOSED:
            return
        actions = await self._wanted(row, session, leaving=leaving)
        if not actions:
            return
        _log.info("session %s: %s", row.session.hex()[:16], ", ".join(type(one).__name__ for one in actions))
        await self._chain.send(actions)
        await self._proved(row.session)

    async def _proved(self, session_id: bytes) -> Session | None:
        """The session's record now; what it paid us is remembered."""
        session = await self._chain.session_record(session_id)
        if session is None:
            return None
        closed = session.status == SESSION_CLOSED
        await self._store.paid(session_id, self._paid(session), settled=closed)
        if closed:
            self._due_ms.pop(session_id, None)
            self._on_closed(session_id)
        return session

    def _paid(self, session: Session) -> int:
        return next((leg.cumulative_udllm for leg in session.legs if leg.provider == self._provider), 0)

    async def _wanted(self, row: SessionRow, session: Session, *, leaving: bool) -> tuple[Record, ...]:
        """The actions that a session calls for now, in one transaction; none is the usual answer."""
        voucher = row.standing.voucher if row.owed_udllm > self._paid(session) else None
        away_ms = 0 if row.session in self._connected() else self._now_ms() - row.last_seen_ms
        if session.status == SESSION_OPEN and away_ms >= self._policy.idle_close_ms:
            return (CloseSession(row.session, voucher, (), ()),)
        actions: list[Record] = []
        if voucher is not None and await self._worth_it(row, session, voucher, away_ms, leaving=leaving):
            actions.append(ClaimVoucher(voucher))
        over = session.status == SESSION_CLOSING and await self._chain.time_ms() >= session.closing_until_ms
        if over and not leaving:
            actions.append(CloseSession(row.session, None, (), ()))
        return tuple(actions)

    async def _worth_it(
        self, row: SessionRow, session: Session, voucher: SignedVoucher, away_ms: int, *, leaving: bool
    ) -> bool:
        gain_udllm = row.owed_udllm - self._paid(session)
        if gain_udllm <= await self._chain.fee_of((ClaimVoucher(voucher),)):
            return False
        return (
            leaving
            or session.status == SESSION_CLOSING
            or gain_udllm >= self._policy.threshold_udllm
            or away_ms >= self._policy.vanished_ms
        )

    async def _listen(self, announced: asyncio.Event) -> None:
        """Set the event at each block; where the announcements end, listen again after a while."""
        while True:
            with suppress(DllmError):
                async for _ in self._chain.new_heights():
                    announced.set()
            await asyncio.sleep(LONGEST_PAUSE_S)
