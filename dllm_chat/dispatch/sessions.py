"""Opening, finding again and closing sessions on chain."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from dllm_chat.dispatch.market import Market, limits_of
from dllm_chat.session.saved import SavedSession, SessionStore
from dllm_protocol.actions import CloseSession, OpenSession, Rating, TopUpSession
from dllm_protocol.assignment import (
    check_route,
    leg_entries,
    loads_of,
    make_route,
    route_hash,
    session_id_of,
)
from dllm_protocol.errors import TransactionRefused, VerificationFailed
from dllm_protocol.model_manifest import manifest_hash
from dllm_protocol.pricing import RowPrices, client_price
from dllm_protocol.ranked_book import rank, rules_of
from dllm_protocol.records import SESSION_CLOSED, SESSION_OPEN, Route, RouteStage, Session
from dllm_protocol.refusals import GraceNotOver, SessionClosed
from dllm_protocol.session.ledger import Ledger, fresh_state
from dllm_protocol.signing import Signer
from dllm_protocol.voucher import FINAL_N
from light_node.queries import ProvedReads
from light_node.sending import Sender, Sent, TransactionSigner

FULL_SCORE_PERMILLE = 1000
FAILED_SCORE_PERMILLE = 0


class Purse(TransactionSigner, Protocol):
    """A wallet account (or its chat key) that opens sessions."""

    def session_key(self, index: int) -> Signer:
        """The key of a session opened before."""
        ...

    def next_session_key(self) -> tuple[int, Signer]:
        """A session number that nobody had before, and its key."""
        ...


@dataclass(frozen=True, slots=True)
class Closed:
    """What closing a session came to."""

    session: bytes
    settled: bool
    """False: the other side may still claim until ``until_ms``; close again afterwards."""
    until_ms: int
    refund_udllm: int
    paid_udllm: int
    """To owners and the community, in all."""
    fee_udllm: int


class Sessions:
    """One account's sessions on one chain."""

    def __init__(
        self, chain_id: str, reads: ProvedReads, sender: Sender, purse: Purse, store: SessionStore
    ) -> None:
        self._chain_id = chain_id
        self._reads = reads
        self._sender = sender
        self._purse = purse
        self.store = store

    @contextlib.contextmanager
    def reuse(self, model: str, exclude: frozenset[bytes]) -> Iterator[SavedSession | None]:
        """Hold an open session for the model that no other process uses, or None.

        A session does not count where nobody is left of a stage who did not fail and is not excluded.
        """
        with contextlib.ExitStack() as stack:
            for saved in self.store.all(self._chain_id, self._purse.account, open_only=True):
                gone = exclude | set(saved.failed)
                if (
                    saved.route.model != model
                    or not can_serve(saved.route, gone)
                    or saved.ledger.n == FINAL_N
                ):
                    continue
                if stack.enter_context(self.store.claim(saved.route.session)):
                    fresh = self.store.load(saved.route.session)
                    if fresh is not None and not fresh.closed and fresh.ledger.n != FINAL_N:
                        yield fresh
                        return
            yield None

    def stranded_by(self, model: str) -> frozenset[bytes]:
        """Providers whose failure left an open session's stage without anybody; they may still be away."""
        sessions = self.store.all(self._chain_id, self._purse.account, open_only=True)
        return frozenset(
            provider
            for saved in sessions
            if saved.route.model == model and not can_serve(saved.route, saved.failed)
            for provider in saved.failed
        )

    async def open(
        self,
        market: Market,
        stages: Sequence[RouteStage],
        deposit_udllm: int,
        exclude: frozenset[bytes],
        claims: contextlib.ExitStack,
    ) -> tuple[SavedSession, Sent]:
        """Open a session on chain, prove its route and refuse another than the rule gives.

        Args:
            claims: holds the session for this process from before it exists.

        Raises:
            RouteRefused, TransactionRefused
        """
        index, key = self._purse.next_session_key()
        session_id = session_id_of(self._purse.account, key.public_key)
        claims.enter_context(self.store.claim(session_id))
        self.store.begin(session_id, self._chain_id, self._purse.account, index)
        limits = limits_of(stages, market.manifest.layers)
        action = OpenSession(
            market.manifest.name, key.public_key, limits, tuple(sorted(exclude)), deposit_udllm
        )
        try:
            sent = await self._sender.send(self._purse, (action,))
        except TransactionRefused:
            self.store.forget(session_id)
            raise
        found = await self._proved(session_id)
        if found is None:
            raise VerificationFailed(
                f"session {session_id.hex()} was opened in block {sent.height} and is not there"
            )
        session, route = found
        await self._check_route(market, route, key.public_key, limits, exclude)
        saved = await self._adopt(session, route, index, failed=())
        return saved, sent

    async def find_forgotten(self) -> int:
        """Take over sessions that were opened by a process that died before it could note so; how many there were.

        Nobody is asked to serve in them: they are there to be closed.
        """
        adopted = 0
        for session_id, index in self.store.begun(self._chain_id, self._purse.account):
            with self.store.claim(session_id) as mine:
                if not mine:
                    continue  # it is being opened right now
                found = await self._proved(session_id)
                if found is None:
                    continue  # its transaction may still come
                session, route = found
                await self._adopt(session, route, index, failed=tuple(sorted(leg_entries(route))))
                adopted += 1
        return adopted

    async def _proved(self, session_id: bytes) -> tuple[Session, Route] | None:
        session, route = await self._reads.session(session_id), await self._reads.route(session_id)
        if session is None or route is None:
            return None
        if session.route_hash != route_hash(route):
            raise VerificationFailed("the session names another route than the chain's record")
        return session, route

    async def _check_route(
        self, market: Market, route: Route, session_key: bytes, limits: RowPrices, exclude: frozenset[bytes]
    ) -> None:
        params = await self._sender.params()
        book = await self._reads.offer_book(route.model, route.book_epoch)
        expected = make_route(
            rank(book, rules_of(market.manifest, params)),
            account=self._purse.account,
            session_key=session_key,
            manifest_hash=manifest_hash(market.manifest),
            max_prices=limits,
            exclusions=exclude,
            load_of=loads_of(route),
        )
        check_route(route, expected)

    async def _adopt(
        self, session: Session, route: Route, key_index: int, failed: tuple[bytes, ...]
    ) -> SavedSession:
        saved = SavedSession(
            chain_id=self._chain_id,
            account=self._purse.account,
            key_index=key_index,
            route=route,
            deposit_udllm=session.deposit_udllm,
            community_share_ppm=session.community_share_ppm,
            ledger=fresh_state(route.session),
            failed=failed,
            closed=1 if _settled(session) else 0,
            header_hash=(await self._reads.client.sync()).hash(),
        )
        self.store.save(saved)
        return saved

    async def top_up(self, saved: SavedSession, amount_udllm: int) -> tuple[SavedSession, Sent]:
        """Add to a session's deposit."""
        action = TopUpSession(saved.route.session, amount_udllm)
        sent = await self._sender.send(self._purse, (action,))
        session = await self._reads.session(saved.route.session)
        if session is None:
            raise VerificationFailed(f"session {saved.route.session.hex()} is gone")
        saved = replace(saved, deposit_udllm=session.deposit_udllm)
        self.store.save(saved)
        return saved, sent

    def left_udllm(self, saved: SavedSession) -> int:
        """What the session's deposit still holds."""
        return saved.deposit_udllm - self.ledger(saved).spent_udllm

    def ledger(self, saved: SavedSession) -> Ledger:
        """The ledger that signs the session's vouchers."""
        return Ledger(
            chain_id=self._chain_id,
            route=saved.route,
            session_key=self._purse.session_key(saved.key_index),
            deposit_udllm=saved.deposit_udllm,
            community_share_ppm=saved.community_share_ppm,
            state=saved.ledger,
        )

    async def still_open(self, saved: SavedSession) -> bool:
        """Whether the chain still has the session open; remembers it when not."""
        session = await self._reads.session(saved.route.session)
        if session is not None and session.status == SESSION_OPEN:
            return True
        self.store.save(replace(saved, closed=1 if _settled(session) else 0))
        return False

    async def close(self, saved: SavedSession) -> Closed:
        """Settle a session with the last voucher and everybody's acks of it, or finish a closing whose grace is over.

        Raises:
            TransactionRefused: the chain's reason; GraceNotOver is not an error here.
        """
        session = await self._reads.session(saved.route.session)
        if session is None or session.status == SESSION_CLOSED:
            self.store.save(replace(saved, closed=1))
            return _closed(saved, session, 0)
        fee_udllm = 0
        try:
            sent = await self._sender.send(self._purse, (self._close_action(saved),))
            fee_udllm = sent.fee_udllm
        except (GraceNotOver, SessionClosed):
            pass  # somebody began or finished closing it: the proved record below says how far it is
        session = await self._reads.session(saved.route.session)
        if _settled(session):
            self.store.save(replace(saved, closed=1))
        return _closed(saved, session, fee_udllm)

    def _close_action(self, saved: SavedSession) -> CloseSession:
        voucher = saved.ledger.last_voucher
        if voucher is None:
            return CloseSession(saved.route.session, None, (), ())
        paid = {leg.provider for leg in voucher.voucher.legs if leg.cumulative_udllm}
        acks = tuple(ack for ack in saved.ledger.acks if ack.ack.n == voucher.voucher.n == FINAL_N)
        stages = {stage.stage.provider for stage in saved.route.stages}
        ratings = tuple(
            Rating(provider, FAILED_SCORE_PERMILLE if provider in saved.failed else FULL_SCORE_PERMILLE)
            for provider in sorted(paid & stages)
        )
        return CloseSession(saved.route.session, voucher, acks, ratings)


def can_serve(route: Route, gone: Collection[bytes]) -> bool:
    """Whether every stage of a route has its provider or its standby left when some are gone."""
    return all(
        any(entry is not None and entry.provider not in gone for entry in (one.stage, one.standby))
        for one in route.stages
    )


async def in_sessions_udllm(reads: ProvedReads, saved: list[SavedSession], height: int) -> int:
    """Deposits less vouchers signed, over all open sessions, proved at one height."""
    total = 0
    for one in saved:
        session = await reads.session(one.route.session, height)
        if session is None or session.status == SESSION_CLOSED:
            continue
        voucher = one.ledger.last_voucher
        payments = voucher.voucher.payments_udllm if voucher else 0
        spent = max(session.spent_udllm, client_price(payments, one.community_share_ppm))
        total += session.deposit_udllm - spent
    return total


def deposit_for(max_cost_udllm: int, spendable_udllm: int, fees_udllm: int, answers: int = 8) -> int:
    """How much to lock: room for several answers, within what there is.

    Raises:
        TransactionRefused: not even one answer is covered.
    """
    affordable = spendable_udllm - fees_udllm
    if affordable < max_cost_udllm:
        raise TransactionRefused(
            f"an answer may cost {max_cost_udllm} udllm and {fees_udllm} udllm fees, spendable are {spendable_udllm}",
            hint="ask for fewer tokens, or have some DLLM sent to you",
        )
    return max(max_cost_udllm, min(max_cost_udllm * answers, affordable // 2))


def _settled(session: Session | None) -> bool:
    return session is None or session.status == SESSION_CLOSED


def _closed(saved: SavedSession, session: Session | None, fee_udllm: int) -> Closed:
    if session is None:
        return Closed(saved.route.session, True, 0, 0, 0, fee_udllm)
    return Closed(
        session=saved.route.session,
        settled=session.status == SESSION_CLOSED,
        until_ms=session.closing_until_ms,
        refund_udllm=session.deposit_udllm - session.spent_udllm,
        paid_udllm=session.spent_udllm,
        fee_udllm=fee_udllm,
    )
