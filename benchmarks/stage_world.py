"""Providers and sessions that every process of a benchmark builds alike from a few numbers: a chain in memory."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from dllm_chat.dispatch.sessions import Sessions
from dllm_chat.session.saved import SavedSession, SessionStore
from dllm_protocol import records
from dllm_protocol.assignment import route_hash, session_id_of
from dllm_protocol.model_manifest import Manifest, manifest_hash
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.records import SESSION_OPEN, Route, RouteStage
from dllm_protocol.session.ledger import fresh_state
from dllm_protocol.signing import SeedSigner
from tests.e2e.stages import ACCOUNT, DEPOSIT_UDLLM, PRICES, SHARE_PPM, Asking, keys_of, provider_of
from tests.local_worker.doubles import ChainDouble


@dataclass(frozen=True, slots=True)
class StageSeat:
    """One worker: its number, its layers, where it listens."""

    number: int
    first: int
    end: int
    endpoint: str

    @property
    def entry(self) -> BookEntry:
        """Its line in the offer book."""
        owner = bytes([200 + self.number]) * 20
        return BookEntry(provider_of(self.number), owner, self.first, self.end, PRICES, 16, 500_000)

    @property
    def record(self) -> records.Provider:
        """Its provider's record."""
        keys = keys_of(self.number)
        return records.Provider(
            self.entry.owner,
            keys.operator_address,
            keys.service.public_key,
            keys.sealing.public_key,
            (self.endpoint,),
            "",
            0,
            (),
            0,
            0,
            (),
        )


Way = list[tuple[int, int | None]]
"""Numbers of each stage's worker and of its standby."""


def build(chain: ChainDouble, manifest: Manifest, seats: list[StageSeat], seeds: dict[int, Way]) -> None:
    """Put providers and sessions on a chain in memory.

    Args:
        seeds: each session's seed and the way that it goes.
    """
    for seat in seats:
        chain.providers[provider_of(seat.number)] = seat.record
    for seed, way in seeds.items():
        made = _route(manifest, seats, seed, way)
        chain.sessions[made.session] = (_session(manifest, seed, made), made)


def asking(chain: ChainDouble, seed: int, folder: Any) -> Asking:
    """The client of a session that was built."""
    key = _key(seed)
    _, made = chain.sessions[session_id_of(ACCOUNT, key.public_key)]
    purse = cast(Any, SimpleNamespace(account=ACCOUNT, session_key=lambda index: key))
    reads = cast(Any, chain)
    sessions = Sessions(
        chain.chain_id, reads, cast(Any, None), purse, SessionStore(folder / f"client-{seed}")
    )
    own = SimpleNamespace(
        chain_id=chain.chain_id, prefix="local", reads=reads, purse=purse, sessions=sessions
    )
    saved = SavedSession(
        chain.chain_id,
        ACCOUNT,
        0,
        made,
        DEPOSIT_UDLLM,
        SHARE_PPM,
        fresh_state(made.session),
        (),
        0,
        bytes(32),
    )
    return Asking(cast(Any, own), saved)


def _key(seed: int) -> SeedSigner:
    return SeedSigner(seed.to_bytes(2, "big") * 16)


def _route(manifest: Manifest, seats: list[StageSeat], seed: int, way: Way) -> Route:
    entries = {seat.number: seat.entry for seat in seats}
    stages = tuple(
        RouteStage(entries[one], entries[other] if other is not None else None) for one, other in way
    )
    session_id = session_id_of(ACCOUNT, _key(seed).public_key)
    return Route(session_id, manifest.name, manifest_hash(manifest), 1, b"\5" * 32, b"\6" * 32, (), stages)


def _session(manifest: Manifest, seed: int, route: Route) -> records.Session:
    return records.Session(
        ACCOUNT,
        manifest.name,
        _key(seed).public_key,
        route_hash(route),
        DEPOSIT_UDLLM,
        0,
        SESSION_OPEN,
        0,
        (),
        b"",
        0,
        0,
        SHARE_PPM,
        0,
    )
