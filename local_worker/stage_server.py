"""Takes channels: handshake, proof of session and route on chain, claim; then a `SessionHost` serves.

Whatever a stranger does here costs his connection and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections import Counter
from collections.abc import Callable

from dllm_protocol.assignment import leg_entries, route_hash
from dllm_protocol.errors import ChannelRefused, DllmError
from dllm_protocol.messages import MAX_FRAME_BYTES, Claim, Frame, Goodbye, StageClaim
from dllm_protocol.model_manifest import Manifest, manifest_hash
from dllm_protocol.records import SESSION_OPEN, Route, Session
from dllm_protocol.sealing import SealedStream
from dllm_protocol.seeding_place import SEEDING_PATH, SEEDING_VERSION, SeedingPlace
from dllm_protocol.session.acceptance import legs_of
from dllm_protocol.session.handshake import ProviderHandshake
from dllm_protocol.session.provider import ProviderLeg, Standing, Terms
from dllm_protocol.stage_link import StageLink, check_stage_claim
from light_node.channel.limits import DEFAULT_LIMITS, ChannelLimits
from light_node.channel.link import Link
from light_node.channel.server import ChannelServer, serve_channels
from local_worker.chain import Chain
from local_worker.errors import ChainSilent, NotServed
from local_worker.handed_log import HandedLogs
from local_worker.keys import WorkerKeys
from local_worker.place_in_line import LineTools
from local_worker.row_room import RowMemory, RowRoom
from local_worker.session_host import SessionHost
from local_worker.store import Store
from local_worker.workbench import Workbench

_log = logging.getLogger(__name__)

SeedingPort = Callable[[], int]
HOST_WAIT_S = 5.0
"""How long a stage before waits for the session's client to come here, too."""
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
        row_memory: RowMemory = RowMemory(),  # noqa: B008 - frozen
        seeding_port: SeedingPort = lambda: 0,
    ) -> None:
        """Prepare.

        Args:
            last_refused_epoch: sessions opened then or before are not served; see `local_worker.restored`.
            seeding_port: where the worker seeds pieces, told to whoever asks; 0: nowhere.
            row_memory: for hidden states that come, and for those that went.
        """
        self._chain = chain
        self._keys = keys
        self._provider = provider
        self._manifest_hash = manifest_hash(manifest)
        self._bench = bench
        self._store = store
        self._limits = limits
        self._last_refused_epoch = last_refused_epoch
        self._seeding_port = seeding_port
        self._logs = HandedLogs(row_memory.kept_bytes)
        room = RowRoom(row_memory.waiting_bytes, row_memory.gathered_bytes)
        self._tools = LineTools(chain, keys.service, limits, self._logs, room)
        self._arrived = asyncio.Condition()
        self._lookups = asyncio.Semaphore(LOOKUPS_AT_ONCE)
        self._hosts: dict[bytes, SessionHost] = {}
        self._claiming: dict[bytes, asyncio.Lock] = {}
        self._claimants: Counter[bytes] = Counter()
        self._server: ChannelServer | None = None

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Open the door; return the port."""
        self._server = await serve_channels(
            host,
            port,
            self.on_connection,
            limits=self._limits,
            tls=tls,
            pages={SEEDING_PATH: self._seeding_place},
        )
        return self._server.port

    def _seeding_place(self) -> bytes | None:
        port = self._seeding_port()
        return SeedingPlace(SEEDING_VERSION, port).encode() if port else None

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
        claim = self._claim_in(stream.open(await link.receive(self._limits.handshake_ms)))
        if isinstance(claim, StageClaim):
            await self._serve_stage(link, StageLink(stream), terms, claim, hash_of_handshake)
            return
        leg = ProviderLeg(terms, Standing(), stream, hash_of_handshake, self._keys.service)
        leg.claimed_by(claim)
        link.allow(MAX_FRAME_BYTES)
        host = await self._replace(session, leg, link)
        try:
            await host.serve()
        finally:
            if self._hosts.get(session) is host:
                del self._hosts[session]

    @staticmethod
    def _claim_in(frame: bytes) -> Claim | StageClaim:
        """What stands alone in the first sealed frame: a client's claim, or that of the stage before."""
        messages = Frame.decode(frame).messages
        if len(messages) != 1 or not isinstance(messages[0], Claim | StageClaim):
            raise ChannelRefused(
                f"the first sealed frame holds {len(messages)} messages, not the claim alone"
            )
        return messages[0]

    async def _serve_stage(
        self, link: Link, stage: StageLink, terms: Terms, claim: StageClaim, hash_of_handshake: bytes
    ) -> None:
        """Take rows of the stage before, for the client who put it there."""
        closes_ring = bool(claim.lane) and terms.is_first and terms.closes_ring(claim.provider)
        if not terms.stands_before(claim.provider) and not closes_ring:
            raise ChannelRefused(
                "a provider dialled who has no layers right before these in the session's route"
            )
        record = await self._chain.provider(claim.provider)
        if record is None:
            raise ChannelRefused(f"the stage before, {claim.provider.hex()}, is not registered any more")
        check_stage_claim(claim, record.service_key, hash_of_handshake)
        host = await self._host_of(terms.session)
        link.allow(MAX_FRAME_BYTES)
        if claim.lane:
            await host.place.take_lane(claim.provider, link, stage)
        else:
            await host.place.take(claim.provider, link, stage)

    async def _host_of(self, session: bytes) -> SessionHost:
        """The session's host, once its client is here."""
        try:
            async with asyncio.timeout(HOST_WAIT_S), self._arrived:
                await self._arrived.wait_for(lambda: session in self._hosts)
                return self._hosts[session]
        except TimeoutError as error:
            raise ChannelRefused("a stage before dialled, and the session's client did not come") from error

    def drop(self, session: bytes) -> None:
        """Free whatever is held for a session that is over."""
        self._bench.pool.drop(session)
        self._logs.drop(session)

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
                host = SessionHost(leg, link, self._bench, self._tools)
                async with self._arrived:
                    # Nothing is awaited between this and `serve`: a host that nobody serves would never end.
                    self._hosts[session] = host
                    self._arrived.notify_all()
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
        info = self._bench.engine.info
        if (entry.first_layer, entry.end_layer) != (info.first_layer, info.end_layer):
            raise NotServed(
                f"the route puts this provider at layers [{entry.first_layer}, {entry.end_layer}), "
                f"it has layers [{info.first_layer}, {info.end_layer}) loaded"
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
            legs_of(route),
            tuple((leg.provider, leg.cumulative_udllm) for leg in session.legs),
        )
