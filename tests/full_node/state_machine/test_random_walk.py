"""Any sequence of actions: no token appears or vanishes, and every replica computes the same.

Two replicas run side by side: one checks transactions first and lives on, the other is made anew for every block.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dllm_protocol import state_keys
from dllm_protocol.actions import (
    BondProvider,
    ClaimVoucher,
    CloseSession,
    GrantChatKey,
    Heartbeat,
    Rating,
    ReportContradiction,
    SetHolding,
    SetOffer,
    TopUpSession,
    Transfer,
    UnbondProvider,
    UpdateProvider,
    WithdrawHolding,
    WithdrawOffer,
)
from dllm_protocol.assignment import leg_entries
from dllm_protocol.encoding import Record
from dllm_protocol.pricing import RowCounts, RowPrices, client_price
from dllm_protocol.records import SESSION_CLOSED, Offer, Provider
from dllm_protocol.voucher import FINAL_N, SignedVoucher, WindowAck, sign_ack
from full_node.state_machine.application import Application
from full_node.state_machine.context import BlockContext
from full_node.state_machine.state import read
from tests.full_node.state_machine.world import (
    LAYERS,
    MODEL,
    PARAMS,
    World,
    address,
    provider_id,
    signer,
)

OWNERS = ("bob", "carol", "dave")
PAYERS = ("alice", "bob", "erin")
NAMES = st.sampled_from(OWNERS)
SENDERS = st.sampled_from(("alice", "bob", "carol", "dave", "erin", "nobody"))
AMOUNTS = st.one_of(st.sampled_from((0, 1, PARAMS.provider_bond_udllm)), st.integers(0, 2_000_000_000))
DEPOSITS = st.one_of(st.integers(0, 10_000), st.just(5_000_000))
PRICE = st.integers(0, 10_000)
ROWS = st.integers(0, 3_000)
SLICES = st.sampled_from(((0, LAYERS), (0, 2), (2, LAYERS), (0, 2), (2, LAYERS), (0, 1), (1, 2)))
WAITS = st.sampled_from((0, 200, PARAMS.epoch_ms, PARAMS.close_grace_ms, PARAMS.unbonding_ms))


class Walk(RuleBasedStateMachine):
    """Blocks of one transaction, most of them sensible, some not."""

    @initialize(in_slices=st.booleans())
    def start(self, in_slices: bool) -> None:
        self.world = World(replace(PARAMS, stage_penalty_ppm=0), chunked=True)
        self.sessions: list[tuple[bytes, str, str]] = []
        whole = (0, LAYERS)
        self.world.provide("bob", RowPrices(10, 500, 500, 10), layers=(0, 2) if in_slices else whole)
        self.world.provide("carol", RowPrices(10, 900, 900, 10), layers=(2, LAYERS) if in_slices else whole)
        self.world.do("alice", GrantChatKey(signer("chat").public_key, 50_000_000))

    def send(self, name: str, *actions: Record, key: str = "", wait_ms: int = 200) -> bool:
        """One block on both replicas; whether the transaction succeeded."""
        world = self.world
        raw = world.sign(name, *actions, key=key).encode()
        replica = Application(world.reader)
        height, time_ns = world.height + 1, (world.time_ms + wait_ms) * 1_000_000
        elsewhere = replica.finalize_block(BlockContext(world.chain_id, height, time_ns), [raw])
        world.app.check_tx(raw)
        here = world.block(raw, after_ms=wait_ms)
        assert here == elsewhere
        return here.results[0].code == 0

    @rule(name=SENDERS, to=SENDERS, amount=AMOUNTS)
    def transfer(self, name: str, to: str, amount: int) -> None:
        self.send(name, Transfer(address(to), amount))

    @rule(cap=st.sampled_from((0, 1_000, 50_000_000)))
    def grant_or_revoke(self, cap: int) -> None:
        self.send("alice", GrantChatKey(signer("chat").public_key if cap else b"", cap))

    @rule(amount=AMOUNTS)
    def register(self, amount: int) -> None:
        self.send("dave", self.world.registration("dave", amount))

    @rule(owner=NAMES, amount=AMOUNTS, sender=SENDERS)
    def bond(self, owner: str, amount: int, sender: str) -> None:
        self.send(sender if amount % 7 == 0 else owner, BondProvider(provider_id(owner), amount))

    @rule(owner=NAMES, amount=AMOUNTS, wait=WAITS)
    def unbond(self, owner: str, amount: int, wait: int) -> None:
        self.send(owner, UnbondProvider(provider_id(owner), amount), wait_ms=wait)

    @rule(owner=NAMES, price=PRICE, room=st.integers(0, 2), layers=SLICES)
    def offer(self, owner: str, price: int, room: int, layers: tuple[int, int]) -> None:
        prices = RowPrices(price // 10, price, price, price // 10)
        self.send(owner, SetOffer(provider_id(owner), MODEL, *layers, prices, room))

    @rule(owner=NAMES, layers=SLICES)
    def provide(self, owner: str, layers: tuple[int, int]) -> None:
        each = 1_000 if layers == (0, LAYERS) else 100  # slices are cheaper than any whole model
        offer = SetOffer(provider_id(owner), MODEL, *layers, RowPrices(10, each, each, 10), 3)
        registered = read(self.world.reader, state_keys.provider(provider_id(owner)), Provider)
        self.send(owner, *([] if registered else [self.world.registration(owner)]), offer)

    @rule(owner=NAMES)
    def withdraw(self, owner: str) -> None:
        self.send(owner, WithdrawOffer(provider_id(owner), MODEL))

    @rule(owner=NAMES, speed=st.integers(0, 2), memory=st.integers(0, LAYERS + 1), layers=SLICES)
    def hold(self, owner: str, speed: int, memory: int, layers: tuple[int, int]) -> None:
        self.send(owner, SetHolding(provider_id(owner), MODEL, speed, memory, *layers))

    @rule(owner=NAMES)
    def hold_no_more(self, owner: str) -> None:
        self.send(owner, WithdrawHolding(provider_id(owner), MODEL))

    @rule(owner=NAMES, wait=WAITS)
    def heartbeat(self, owner: str, wait: int) -> None:
        self.send(owner, Heartbeat(provider_id(owner)), wait_ms=wait)

    @rule(owner=st.just("dave"))
    def rotate(self, owner: str) -> None:
        key = signer(f"{owner}'s service").public_key
        self.send(owner, UpdateProvider(provider_id(owner), key, b"", ("ws://elsewhere",)))

    @rule(owner=st.sampled_from(("carol", "dave")), n=st.integers(1, 3))
    def contradict(self, owner: str, n: int) -> None:
        acks = [
            sign_ack(
                signer(f"{owner}'s service"),
                WindowAck(self.world.chain_id, b"s" * 32, provider_id(owner), n, b"t" * 32, outputs, 0),
            )
            for outputs in (b"a" * 32, b"b" * 32)
        ]
        self.send("alice", ReportContradiction(*acks))

    @rule(payer=st.sampled_from(PAYERS), deposit=DEPOSITS, by_chat_key=st.booleans())
    def open(self, payer: str, deposit: int, by_chat_key: bool) -> None:
        key = f"session {len(self.sessions)}"
        sender = "alice" if by_chat_key else payer
        opening = self.world.opening(key, deposit_udllm=deposit)
        if self.send(sender, opening, key="chat" if by_chat_key else ""):
            assert self.world.last is not None
            self.sessions.append((self.world.last.results[0].data, sender, key))

    @precondition(lambda self: self.sessions)
    @rule(pick=st.integers(0, 99), amount=AMOUNTS)
    def top_up(self, pick: int, amount: int) -> None:
        session, payer, _ = self.sessions[pick % len(self.sessions)]
        self.send(payer, TopUpSession(session, amount))

    @precondition(lambda self: self.sessions)
    @rule(pick=st.integers(0, 99), rows=st.tuples(ROWS, ROWS, ROWS), step=st.integers(0, 2), sender=SENDERS)
    def claim(self, pick: int, rows: tuple[int, int, int], step: int, sender: str) -> None:
        session, _, key = self.sessions[pick % len(self.sessions)]
        self.send(sender, ClaimVoucher(self.voucher(session, key, rows, step)))

    @precondition(lambda self: self.sessions)
    @rule(
        pick=st.integers(0, 99),
        rows=st.tuples(ROWS, ROWS, ROWS),
        acks=st.integers(0, 3),
        with_voucher=st.booleans(),
        stranger=st.sampled_from(("", "", "bob", "erin")),
        score=st.integers(0, 1000),
        wait=WAITS,
    )
    def close(
        self,
        pick: int,
        rows: tuple[int, int, int],
        acks: int,
        with_voucher: bool,
        stranger: str,
        score: int,
        wait: int,
    ) -> None:
        session, payer, key = self.sessions[pick % len(self.sessions)]
        voucher = self.voucher(session, key, rows, score % 2 * FINAL_N or 1) if with_voucher else None
        signed = []
        if voucher is not None:
            owners = {provider_id(owner): owner for owner in OWNERS}
            route = sorted(leg_entries(self.world.route(session)))[:acks]
            signed = [self.world.ack(owners[provider], voucher.voucher) for provider in route]
        ratings = tuple(
            Rating(provider, score) for provider in sorted(leg_entries(self.world.route(session)))
        )
        action = CloseSession(session, voucher, tuple(signed), ratings)
        self.send(stranger or payer, action, wait_ms=wait)

    def voucher(self, session: bytes, key: str, rows: tuple[int, int, int], step: int) -> SignedVoucher:
        """A voucher for the stages and, with rows for them, the standbys."""
        providers = sorted(leg_entries(self.world.route(session)))
        counts = {
            provider: RowCounts(0, count, 0, 0) for provider, count in zip(providers, rows, strict=False)
        }
        n = self.world.session(session).voucher_n + step
        return self.world.voucher(session, max(1, min(n, FINAL_N)), counts, key)

    @invariant()
    def sessions_never_spend_more_than_their_deposit(self) -> None:
        for session_id, _, _ in self.sessions:
            session = self.world.session(session_id)
            paid = sum(leg.cumulative_udllm for leg in session.legs)
            assert session.spent_udllm == client_price(paid, session.community_share_ppm)
            assert session.spent_udllm <= session.deposit_udllm

    @invariant()
    def offers_count_their_open_sessions(self) -> None:
        still_open = [
            provider
            for session_id, _, _ in self.sessions
            if self.world.session(session_id).status != SESSION_CLOSED
            for provider in leg_entries(self.world.route(session_id))
        ]
        for owner in OWNERS:
            offer = read(self.world.reader, state_keys.offer(MODEL, provider_id(owner)), Offer)
            counted = offer.open_sessions if offer else 0
            assert counted == still_open.count(provider_id(owner))


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=80, stateful_step_count=40)
