"""When a voucher becomes a transaction, and when a session is closed over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dllm_protocol.actions import ClaimVoucher, CloseSession, RegisterModel, RegisterProvider, SetOffer
from dllm_protocol.address import provider_id_of
from dllm_protocol.model_manifest import Manifest, Piece
from dllm_protocol.pricing import RowCounts, RowPrices
from dllm_protocol.records import SESSION_CLOSED, SESSION_CLOSING
from dllm_protocol.refusals import VoucherNotHigher
from dllm_protocol.session.ledger import Ledger, fresh_state
from dllm_protocol.session.provider import Standing
from dllm_protocol.signing import SeedSigner
from local_worker.settlement import ClaimPolicy, Settlement
from local_worker.store import Store
from tests.local_worker.doubles import FEE_UDLLM, ChainDouble

OPERATOR = b"\x21" * 20
PROVIDER = provider_id_of(OPERATOR, OPERATOR)
PRICES = RowPrices(1000, 1000, 1000, 1000)
MANIFEST = Manifest(
    1, "m", "llama", 2, 512, b"\1" * 32, "plain", "none", PRICES, (Piece(1, 0, 5, b"\2" * 32),)
)
POLICY = ClaimPolicy(threshold_udllm=500, vanished_ms=60_000, idle_close_ms=600_000)


@dataclass
class Bench:
    """A settlement with everything around it."""

    chain: ChainDouble
    store: Store
    now_ms: int = 1_000_000
    connected: set[bytes] = field(default_factory=set)
    looked_at: list[bytes] = field(default_factory=list)
    closed: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settlement = Settlement(
            chain=self.chain,
            store=self.store,
            provider=PROVIDER,
            policy=POLICY,
            connected=lambda: frozenset(self.connected),
            on_look=self._look,
            on_closed=self.closed.append,
            now_ms=lambda: self.now_ms,
        )

    async def _look(self, session: bytes) -> None:
        self.looked_at.append(session)

    async def served(self, seed: int, rows: int) -> bytes:
        """A session whose client promised so many rows (1 udllm each) and left."""
        key = SeedSigner(bytes([seed]) * 32)
        session = self.chain.open_session(PROVIDER, key)
        record, route = self.chain.sessions[session]
        ledger = Ledger(
            chain_id=self.chain.chain_id,
            route=route,
            session_key=key,
            deposit_udllm=record.deposit_udllm,
            community_share_ppm=record.community_share_ppm,
            state=fresh_state(session),
        )
        voucher = ledger.use(PROVIDER, RowCounts(rows, 0, 0, 0), bytes(32))
        assert voucher is not None
        await self.store.put(session, Standing(voucher), rows, self.now_ms)
        return session

    async def sweep(self, later_ms: int = 0) -> list[type[object]]:
        """Let time pass, sweep, and return the kinds of actions that were sent."""
        self.now_ms += later_ms
        before = len(self.chain.sent)
        await self.settlement.sweep()
        return [type(action) for action in self.chain.sent[before:]]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    chain = ChainDouble(OPERATOR)
    await chain.send(
        (
            RegisterModel(MANIFEST),
            RegisterProvider(OPERATOR, b"\3" * 32, b"\4" * 32, ("ws://h:1",), "", 1),
            SetOffer(PROVIDER, "m", 0, 2, PRICES, 8),
        )
    )
    store = Store(tmp_path / "worker.db")
    yield Bench(chain, store)
    await store.close()


async def test_little_money_of_a_client_who_just_left_can_wait(bench: Bench) -> None:
    await bench.served(1, 400)
    assert await bench.sweep() == []


async def test_enough_money_is_claimed_at_once(bench: Bench) -> None:
    session = await bench.served(1, 500)
    bench.connected.add(session)
    assert await bench.sweep() == [ClaimVoucher]
    assert bench.looked_at == [session]
    row = await bench.store.row(session)
    assert row is not None and (row.claimed_udllm, row.unclaimed_udllm, row.settled) == (500, 0, False)
    assert await bench.sweep(120_000) == []


async def test_a_client_who_vanished_is_claimed_if_it_pays_the_fee(bench: Bench) -> None:
    await bench.served(1, FEE_UDLLM + 1)
    await bench.served(2, FEE_UDLLM)
    assert await bench.sweep() == []
    assert await bench.sweep(POLICY.vanished_ms) == [ClaimVoucher]


async def test_a_client_who_is_here_has_not_vanished(bench: Bench) -> None:
    bench.connected.add(await bench.served(1, 400))
    assert await bench.sweep(POLICY.vanished_ms) == []


async def test_a_session_closing_with_less_than_ours_is_claimed_now(bench: Bench) -> None:
    session = await bench.served(1, 100)
    bench.chain.change(session, status=SESSION_CLOSING, closing_until_ms=bench.chain.now_ms + 10**6)
    assert await bench.sweep() == [ClaimVoucher]


async def test_a_session_that_somebody_else_claimed_for_us_is_left_alone(bench: Bench) -> None:
    session = await bench.served(1, 10_000)
    row = await bench.store.row(session)
    assert row is not None and row.standing.voucher is not None
    bench.chain.change(session, voucher_n=7, legs=row.standing.voucher.voucher.legs)
    assert await bench.sweep(POLICY.vanished_ms) == []


async def test_a_higher_voucher_that_leaves_us_out_does_not_keep_us_from_claiming(bench: Bench) -> None:
    session = await bench.served(1, 10_000)
    bench.chain.change(session, voucher_n=7)
    assert await bench.sweep(POLICY.vanished_ms) == [ClaimVoucher]


async def test_a_grace_that_is_over_is_ended(bench: Bench) -> None:
    session = await bench.served(1, 5)
    bench.chain.change(session, status=SESSION_CLOSING, closing_until_ms=bench.chain.now_ms)
    assert await bench.sweep() == [CloseSession]
    assert bench.closed == [session]
    row = await bench.store.row(session)
    assert row is not None and row.settled and row.unclaimed_udllm == 0


async def test_a_silent_client_is_closed_over_with_the_best_voucher_and_then_finished(bench: Bench) -> None:
    session = await bench.served(1, 5)
    assert await bench.sweep(POLICY.idle_close_ms) == [CloseSession]
    action = bench.chain.sent[-1]
    assert isinstance(action, CloseSession) and action.voucher is not None and action.voucher.voucher.n == 1
    bench.chain.now_ms += 10_000
    assert await bench.sweep(POLICY.idle_close_ms) == [CloseSession]
    assert bench.chain.sessions[session][0].status == SESSION_CLOSED


async def test_a_closed_session_is_forgotten(bench: Bench) -> None:
    session = await bench.served(1, 10_000)
    bench.chain.change(session, status=SESSION_CLOSED)
    assert await bench.sweep() == []
    assert bench.closed == [session]
    assert await bench.store.unsettled() == []


async def test_one_claim_that_fails_does_not_hold_up_the_others(bench: Bench) -> None:
    first, second = await bench.served(1, 600), await bench.served(2, 700)
    bench.chain.refuse_next.append(VoucherNotHigher("1 is not above 1"))
    assert await bench.sweep() == [ClaimVoucher]
    assert await bench.sweep() == []
    assert await bench.sweep(30_000) == [ClaimVoucher]
    for session in (first, second):
        row = await bench.store.row(session)
        assert row is not None and row.unclaimed_udllm == 0


async def test_leaving_claims_everything_that_is_worth_its_fee(bench: Bench) -> None:
    await bench.served(1, FEE_UDLLM + 1)
    await bench.served(2, FEE_UDLLM)
    await bench.served(3, 499)
    before = len(bench.chain.sent)
    await bench.settlement.settle_all()
    assert [type(action) for action in bench.chain.sent[before:]] == [ClaimVoucher, ClaimVoucher]
