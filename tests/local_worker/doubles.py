"""A chain in memory behind the worker's own `Chain` door: records by key, and what was sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from dllm_chat.embedded.chain import LOCAL_PARAMS
from dllm_protocol import records
from dllm_protocol.actions import (
    ClaimVoucher,
    CloseSession,
    RegisterModel,
    RegisterProvider,
    SetHolding,
    SetOffer,
    UpdateProvider,
    WithdrawHolding,
)
from dllm_protocol.address import provider_id_of
from dllm_protocol.assignment import route_hash, session_id_of
from dllm_protocol.encoding import Record
from dllm_protocol.errors import TransactionRefused
from dllm_protocol.holder_book import HolderBook, HolderEntry
from dllm_protocol.model_manifest import manifest_hash
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.params import Params
from dllm_protocol.records import SESSION_CLOSED, SESSION_CLOSING, SESSION_OPEN, Route, RouteStage, Session
from dllm_protocol.signing import SeedSigner

ACCOUNT = b"\7" * 20
FEE_UDLLM = 10


@dataclass
class ChainDouble:
    """Keeps what was sent and does the little that the worker waits for."""

    operator: bytes
    chain_id: str = "local-00000000"
    params: Params = LOCAL_PARAMS
    address_prefix: str = "local"
    genesis_time_ms: int = 0
    models: dict[str, records.ModelRecord] = field(default_factory=dict)
    providers: dict[bytes, records.Provider] = field(default_factory=dict)
    offers: dict[bytes, records.Offer] = field(default_factory=dict)
    holdings: dict[bytes, records.Holding] = field(default_factory=dict)
    others: list[HolderEntry] = field(default_factory=list)
    """Holders beside those that this chain was told of."""
    head: records.OfferBookHead | None = None
    sessions: dict[bytes, tuple[Session, Route]] = field(default_factory=dict)
    sent: list[Record] = field(default_factory=list)
    refuse_next: list[TransactionRefused] = field(default_factory=list)
    now_ms: int = 1_000_000
    closed: bool = False
    epochs_until_book: int = 0
    """Looks into the book that do not find the offer."""

    async def session(self, session: bytes) -> tuple[Session, Route] | None:
        return self.sessions.get(session)

    async def session_record(self, session: bytes) -> Session | None:
        found = self.sessions.get(session)
        return found[0] if found else None

    async def provider(self, provider: bytes) -> records.Provider | None:
        return self.providers.get(provider)

    async def model(self, name: str) -> records.ModelRecord | None:
        return self.models.get(name)

    async def model_names(self) -> tuple[str, ...]:
        return tuple(sorted(self.models))

    async def offer(self, model: str, provider: bytes) -> records.Offer | None:
        return self.offers.get(provider)

    async def holding(self, model: str, provider: bytes) -> records.Holding | None:
        return self.holdings.get(provider)

    async def book_head(self, model: str) -> records.OfferBookHead | None:
        return self.head

    async def holder_book(self, model: str) -> HolderBook | None:
        """As if a book were frozen with every action."""
        entries = [
            HolderEntry(
                one.provider,
                self.providers[one.provider].owner,
                one.speed_layer_rows_s,
                one.memory_layers,
                one.first_layer,
                one.end_layer,
                one.since_epoch,
                int(self._offers_exactly(one)),
            )
            for one in self.holdings.values()
        ]
        entries += self.others
        if not entries:
            return None
        return HolderBook(model, self.epoch, tuple(sorted(entries, key=lambda one: one.provider)))

    @property
    def epoch(self) -> int:
        return (self.now_ms - self.genesis_time_ms) // self.params.epoch_ms

    def _offers_exactly(self, holding: records.Holding) -> bool:
        offer = self.offers.get(holding.provider)
        slice_ = (holding.first_layer, holding.end_layer)
        return offer is not None and (offer.first_layer, offer.end_layer) == slice_

    async def is_in_book(self, model: str, provider: bytes) -> bool:
        self.epochs_until_book -= 1
        return self.epochs_until_book < 0

    async def account(self, address: bytes) -> records.Account | None:
        return records.Account(10**9, 0)

    async def time_ms(self) -> int:
        return self.now_ms

    async def fee_of(self, actions: Sequence[Record]) -> int:
        return FEE_UDLLM * len(actions)

    async def send(self, actions: Sequence[Record]) -> None:
        if self.refuse_next:
            raise self.refuse_next.pop(0)
        for action in actions:
            self.sent.append(action)
            self._apply(action)

    async def new_heights(self) -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 0

    async def close(self) -> None:
        self.closed = True

    def _apply(self, action: Record) -> None:
        match action:
            case RegisterModel():
                record = records.ModelRecord(self.operator, action.manifest, 1, records.MODEL_ACTIVE)
                self.models[action.manifest.name] = record
            case RegisterProvider():
                self.providers[provider_id_of(self.operator, action.operator)] = records.Provider(
                    self.operator,
                    action.operator,
                    action.service_key,
                    action.sealing_key,
                    action.endpoints,
                    action.region,
                    action.bond_udllm,
                    (),
                    0,
                    0,
                    (),
                )
            case UpdateProvider():
                self.providers[action.provider] = replace(
                    self.providers[action.provider],
                    service_key=action.service_key,
                    sealing_key=action.sealing_key,
                    endpoints=action.endpoints,
                )
            case SetOffer():
                self.offers[action.provider] = records.Offer(
                    action.provider,
                    action.model,
                    action.first_layer,
                    action.end_layer,
                    action.prices,
                    action.capacity_sessions,
                    0,
                )
            case SetHolding():
                self.holdings[action.provider] = records.Holding(
                    action.provider,
                    action.model,
                    action.speed_layer_rows_s,
                    action.memory_layers,
                    action.first_layer,
                    action.end_layer,
                    self.epoch,
                )
            case WithdrawHolding():
                del self.holdings[action.provider]
            case ClaimVoucher():
                voucher = action.voucher.voucher
                self.change(voucher.session, voucher_n=voucher.n, legs=voucher.legs)
            case CloseSession():
                session, _ = self.sessions[action.session]
                if session.status == SESSION_OPEN:
                    self.change(action.session, status=SESSION_CLOSING, closing_until_ms=self.now_ms + 3000)
                else:
                    self.change(action.session, status=SESSION_CLOSED)

    def change(self, session_id: bytes, **fields: object) -> None:
        """Change a session's record."""
        session, route = self.sessions[session_id]
        self.sessions[session_id] = (replace(session, **fields), route)  # type: ignore[arg-type]  # any field

    def open_session(self, provider: bytes, key: SeedSigner, *, deposit_udllm: int = 10**8) -> bytes:
        """Open a session whose one stage is the provider; return its id."""
        offer = self.offers[provider]
        manifest = self.models[offer.model].manifest
        owner = self.providers[provider].owner
        entry = BookEntry(provider, owner, 0, manifest.layers, offer.prices, offer.capacity_sessions, 500_000)
        session_id = session_id_of(ACCOUNT, key.public_key)
        stages = (RouteStage(entry, None),)
        route = Route(session_id, offer.model, manifest_hash(manifest), 1, b"\5" * 32, b"\6" * 32, (), stages)
        session = Session(
            account=ACCOUNT,
            model=offer.model,
            session_key=key.public_key,
            route_hash=route_hash(route),
            deposit_udllm=deposit_udllm,
            spent_udllm=0,
            status=SESSION_OPEN,
            voucher_n=0,
            legs=(),
            transcript=b"",
            opened_epoch=0,
            closing_until_ms=0,
            community_share_ppm=100_000,
            rated=0,
        )
        self.sessions[session_id] = (session, route)
        return session_id
