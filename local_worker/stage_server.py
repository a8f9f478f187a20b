"""Takes channels: handshake, proof of session and route on chain, claim; then a `SessionHost` serves.

Whatever a stranger does here costs his connection and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections import Counter

from dllm_protocol.assignment import leg_entries, route_hash
from dllm_protocol.errors import ChannelRefused, DllmError
from dllm_protocol.messages import MAX_FRAME_BYTES, Frame, Goodbye
from dllm_protocol.model_manifest import Manifest, manifest_hash
from dllm_protocol.records import SESSION_OPEN, Route, Session
from dllm_protocol.sealing import SealedStream
from dllm_protocol.session.handshake import ProviderHandshake
from dllm_protocol.session.provider import Claimed, ProviderLeg, Standing, Terms
from light_node.channel.limits import DEFAULT_LIMITS, ChannelLimits
from light_node.channel.link import Link
from light_node.channel.server import ChannelServer, serve_channels
from local_worker.chain import Chain
from local_worker.errors import ChainSilent, NotServed
from local_worker.keys import WorkerKeys
from local_worker.session_host import SessionHost, Workbench
from local_worker.store import Store

_log = logging.getLogger(__name__)

LOOKUPS_AT_ONCE = 8
LOOKUP_TRIES = 5
LOOKUP_PAUSE_S = 0.3
"""A client's node may know a new session a moment before ours."""


class StageServer:
    """One provider's door."""

    def __init__(
        self,
        *,
        chain: Chain,
        keys: WorkerKeys,
        provider: bytes,
        manifest: Manifest,
        bench: Workbench,
        store: Store,
        limits: ChannelLimits = DEFAULT_LIMITS,
        last_refused_epoch: int | None = None,
    ) -> None:
        """``last_refused_epoch``: sessions opened then or before are not served; see `local_worker.restored`."""
        self._chain = chain
        self._keys = keys
        self._provider = provider
        self._manifest_hash = manifest_hash(manifest)
        self._bench = bench
        self._store = store
        self._limits = limits
        self._last_refused_epoch = last_refused_epoch
        self._lookups = asyncio.Semaphore(LOOKUPS_AT_ONCE)
        self._hosts: dict[bytes, SessionHost] = {}
        self._claiming: dict[bytes, asyncio.Lock] = {}
        self._claimants: Counter[bytes] = Counter()
        self._server: ChannelServer | None = None

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Open the door; return the port."""
        self._server = await serve_channels(host, port, self.on_connection, limits=self._limits, tls=tls)
        return self._server.port

    @property
    def connected(self) -> frozenset[bytes]:
        """Sessions whose client is here now."""
        return frozenset(self._hosts)

    @property
    def busy(self) -> bool:
        """Whether any session is in the middle of an answer."""
        return any(host.busy for host in self._hosts.values())

    @property
    def answering(self) -> int:
        """Sessions in the middle of an answer."""
        return sum(host.busy for host in self._hosts.values())

    async def refresh(self, session: bytes) -> None:
        """Prove a connected session's terms again: its deposit may have grown, or it may be over."""
        host = self._hosts.get(session)
        if host is None:
            return
        try:
            host.leg.terms = await self._prove(session, tries=1)
        except ChainSilent as error:
            _log.info("session %s goes on as it was: %s", session.hex()[:16], error.message)
        except NotServed as error:
            await host.leave(error.message)

    async def close(self, reason: str) -> None:
        """Say goodbye to every client and close the door."""
        await asyncio.gather(*(host.leave(reason) for host in list(self._hosts.values())))
        if self._server is not None:
            await self._server.close()

    async def on_connection(self, link: Link) -> None:
        """Serve one connection to its end.

        Raises:
            ChannelRefused, MalformedBytes, NetworkUnreachable, TimedOut: it ended thus.
        """
        first = await link.receive(self._limits.handshake_ms)
        handshake = ProviderHandshake(
            first, chain_id=self._chain.chain_id, provider=self._provider, sealing_key=self._keys.sealing
        )
        answer, stream, hash_of_handshake = handshake.answer(self._keys.service, os.urandom(32))
        await link.send(answer)
        session = handshake.hello.session
        try:
            if self._bench.draining():
                raise NotServed("this worker is about to stop")
            terms = await self._prove(session, tries=LOOKUP_TRIES)
            await self._require_newest_ledger(terms)
        except NotServed as error:
            await self._say_goodbye(link, stream, error.message)
            raise
        leg = ProviderLeg(terms, Standing(), stream, hash_of_handshake, self._keys.service)
        await self._take_claim(link, leg)
        host = await self._replace(session, leg, link)
        link.allow(MAX_FRAME_BYTES)
        try:
            await host.serve()
        finally:
            if self._hosts.get(session) is host:
                del self._hosts[session]

    async def _take_claim(self, link: Link, leg: ProviderLeg) -> None:
        orders = list(leg.receive(await link.receive(self._limits.handshake_ms)))
        if orders != [Claimed()]:
            raise ChannelRefused(f"the first sealed frame holds {len(orders)} messages, not the claim alone")

    async def _replace(self, session: bytes, leg: ProviderLeg, link: Link) -> SessionHost:
        """The session's key has spoken: this channel counts now, an older one of the session ends."""
        lock = self._claiming.setdefault(session, asyncio.Lock())
        self._claimants[session] += 1
        try:
            async with lock:
                older = self._hosts.get(session)
                if older is not None:
                    await older.leave("a newer connection of this session took over")
                leg.standing = await self._store.standing(session)
                host = self._hosts[session] = SessionHost(leg, link, self._bench)
                return host
        finally:
            # The lock goes with the last who waits for it: with two locks two channels of one session would
            # serve side by side, and each would acknowledge its own voucher of one number.
            self._claimants[session] -= 1
            if not self._claimants[session]:
                del self._claimants[session]
                del self._claiming[session]

    async def _prove(self, session: bytes, *, tries: int) -> Terms:
        """What the chain says of a session that wants to be served here.

        Raises:
            NotServed: it is not for us, over, or not to be proved now.
        """
        for left in reversed(range(tries)):
            try:
                async with self._lookups:
                    found = await self._chain.session(session)
            except DllmError as error:
                _log.warning("session %s could not be proved: %s", session.hex()[:16], error.message)
                raise ChainSilent("this worker cannot ask the chain now; try again in a moment") from error
            if found is not None:
                return self._terms(session, *found)
            if left:
                await asyncio.sleep(LOOKUP_PAUSE_S)
        raise NotServed(f"the chain has no session {session.hex()[:16]}…")

    async def _require_newest_ledger(self, terms: Terms) -> None:
        """A ledger that knows less than the chain paid is a copy from earlier: what was acknowledged since is lost.

        Raises:
            NotServed
        """
        paid = next((amount for provider, amount in terms.claimed if provider == self._provider), 0)
        row = await self._store.row(terms.session)
        owed = row.owed_udllm if row else 0
        if paid > owed:
            raise NotServed(
                f"the chain has paid {paid} udllm for this session, this worker's ledger knows of {owed}: "
                "it is a copy from earlier and does not go on"
            )

    async def _say_goodbye(self, link: Link, stream: SealedStream, reason: str) -> None:
        """The client hears why, sealed, before any leg stands: after its claim, when it listens."""
        await link.receive(self._limits.handshake_ms)
        await link.send(stream.seal(Frame((Goodbye(reason[:200]),)).encode()))

    def _terms(self, session_id: bytes, session: Session, route: Route) -> Terms:
        if session.status != SESSION_OPEN:
            raise NotServed(f"session {session_id.hex()[:16]}… is closing or closed")
        if self._last_refused_epoch is not None and session.opened_epoch <= self._last_refused_epoch:
            raise NotServed(
                f"this worker was restored from a backup in epoch {self._last_refused_epoch}; "
                f"the session is of epoch {session.opened_epoch}"
            )
        if session.route_hash != route_hash(route):
            raise NotServed("the session's route is another than its record says")
        if route.manifest_hash != self._manifest_hash:
            raise NotServed(f"the session is for another version of {route.model} than this worker serves")
        legs = leg_entries(route)
        if self._provider not in legs:
            raise NotServed("this provider does not stand in the session's route")
        entry, role = legs[self._provider]
        if len(route.stages) != 1:
            raise NotServed(
                f"the route has {len(route.stages)} stages, this worker serves whole models only: "
                f"its part would be layers [{entry.first_layer}, {entry.end_layer})"
            )
        return Terms(
            self._chain.chain_id,
            session_id,
            session.session_key,
            session.route_hash,
            session.deposit_udllm,
            session.community_share_ppm,
            entry,
            role,
            frozenset(legs),
            tuple((leg.provider, leg.cumulative_udllm) for leg in session.legs),
        )
