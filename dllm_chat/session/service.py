"""The machinery behind every screen and command: one network, one purse, one light node."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dllm_chat.config import Config
from dllm_chat.dispatch.market import NoProvider
from dllm_chat.dispatch.sessions import Closed, Sessions, in_sessions_udllm
from dllm_chat.paths import LockBusy, Paths
from dllm_chat.serving_from import ServingFrom
from dllm_chat.serving_pieces import ServingPieces
from dllm_chat.session.answering import finish_answer
from dllm_chat.session.connection import Connection, connect
from dllm_chat.session.conversation import Chain, Conversation
from dllm_chat.session.events import Answered, AskEvent, AskOptions, Balance, WorkerStatus
from dllm_chat.session.saved import SessionStore
from dllm_chat.session.settling import agree_on_the_end
from dllm_chat.session.token_log import TokenLog
from dllm_chat.session.vocabularies import VocabularyCache
from dllm_chat.wallet.open_wallet import OpenWallet
from dllm_protocol.address import encode_address
from dllm_protocol.bundle import NetworkBundle
from dllm_protocol.chat_templates import ChatMessage
from dllm_protocol.errors import DllmError, NotFound, UsageRefused
from dllm_protocol.receipt import BADGE_LOCAL
from light_node.client import Freshness, TrustStatus
from light_node.queries import ProvedReads
from light_node.sending import Sender

_CLOSE_TRIES = 3
_LONG_GRACE_MS = 30_000
"""Beyond this nobody is kept waiting: the session is closed for good some other time."""
_BLOCK_POLL_S = 0.2
_CLAIM_WAIT_S = 2.0
_CLAIM_POLL_S = 0.05


class NotOpen(UsageRefused):
    """`ChatService.open` was not called, or is not through."""

    code = "E_NOT_OPEN"


class ChatService:
    """Implements `session.service_door.ChatDoor`; commands use the same object."""

    def __init__(
        self, paths: Paths, config: Config, wallet: OpenWallet | None = None, *, watch_only: bool = False
    ) -> None:
        """Prepare.

        Args:
            wallet: an unlocked wallet to pay from on a joined network; its chat key pays where there is none.
            watch_only: look at the account and the chain on a joined network, sign nothing, need no key.
        """
        self.paths = paths
        self.config = config
        self._wallet = wallet
        self._watch_only = watch_only
        self._connection: Connection | None = None
        self._chain: Chain | None = None
        self._store: SessionStore | None = None
        self._running: Conversation | None = None
        self._token_logs: dict[bytes, TokenLog] = {}
        self._on_progress: Callable[[str], None] = _to_nobody
        self._reopening = asyncio.Lock()

    # -- opening and closing ---------------------------------------------------------------------------------

    async def open(self, on_progress: Callable[[str], None]) -> None:
        """See `ChatDoor`."""
        self._on_progress = on_progress
        connection = await connect(
            self.paths, self.config, on_progress, self._wallet, watch_only=self._watch_only
        )
        try:
            on_progress("verifying the chain")
            await connection.sync()
        except BaseException:
            await connection.close()
            raise
        bundle = connection.bundle
        reads = ProvedReads(connection.light)
        sender = Sender(bundle.chain_id, reads)
        self._store = SessionStore(self.paths.data / "sessions")
        sessions = Sessions(bundle.chain_id, reads, sender, connection.purse, self._store)
        self._chain = Chain(
            chain_id=bundle.chain_id,
            prefix=bundle.genesis.address_prefix,
            reads=reads,
            sender=sender,
            sessions=sessions,
            purse=connection.purse,
            vocabularies=VocabularyCache(self.paths.cache / "vocabularies"),
        )
        self._connection = connection
        try:
            await sessions.find_forgotten()
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """See `ChatDoor`."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
        if self._store is not None:
            self._store.close()
            self._store = None

    async def _reopen_if_lost(self) -> None:
        """The embedded network may have been killed under us: start it again, with the chain as it was."""
        async with self._reopening:
            if self._connection is not None and self._connection.lost:
                await self.aclose()
                await self.open(self._on_progress)

    # -- what is known ----------------------------------------------------------------------------------------

    @property
    def chain(self) -> Chain:
        """The chain in use. Raises NotOpen before `open`."""
        if self._chain is None:
            raise NotOpen("the network is not open yet")
        return self._chain

    @property
    def connection(self) -> Connection:
        """The network in use. Raises NotOpen before `open`."""
        if self._connection is None:
            raise NotOpen("the network is not open yet")
        return self._connection

    @property
    def bundle(self) -> NetworkBundle:
        """The network's description."""
        return self.connection.bundle

    @property
    def badge(self) -> str:
        """See `ChatDoor`."""
        if self._connection is None:
            return ""
        return "LOCAL" if self.bundle.badge == BADGE_LOCAL else "NETWORK"

    @property
    def play_money(self) -> bool:
        """Whether a play wallet pays, whose money is worth nothing anywhere else."""
        return self._connection is not None and self._connection.play_money

    @property
    def chain_id(self) -> str:
        """See `ChatDoor`."""
        return self._chain.chain_id if self._chain else ""

    @property
    def address(self) -> str:
        """Our account, bech32."""
        return encode_address(self.chain.prefix, self.chain.purse.account)

    def freshness(self) -> Freshness:
        """See `ChatDoor`."""
        if self._connection is None:
            return Freshness(TrustStatus.OFFLINE, 0, b"", 0, 0, 0, "the network is not open yet")
        return self._connection.light.status()

    async def refresh(self) -> Freshness:
        """See `ChatDoor`. What goes wrong stands in the answer's ``problem``."""
        await self._reopen_if_lost()
        with contextlib.suppress(DllmError):  # the light client keeps the reason in its status
            await self.connection.sync()
        return self.freshness()

    async def models(self) -> list[str]:
        """See `ChatDoor`."""
        return list(await self.chain.reads.models())

    async def default_model(self) -> str:
        """See `ChatDoor`: configured, else what our own worker serves, else the embedded network's, else any."""
        if self.config.model:
            return self.config.model
        own = self.connection.worker_status()
        preferred = own.model if own.state == "serving" else await self.connection.preferred_model()
        names = await self.models()
        if preferred in names:
            return preferred
        if not names:
            raise NoProvider("the network has no model yet", hint="start a worker: dllm worker on")
        return names[0]

    async def balance(self) -> Balance:
        """See `ChatDoor`."""
        chain = self.chain
        height = await chain.reads.provable_height()
        account = await chain.reads.account(chain.purse.account, height)
        saved = chain.sessions.store.all(chain.chain_id, chain.purse.account, open_only=True)
        return Balance(
            address=self.address,
            spendable_udllm=account.balance_udllm if account else 0,
            in_sessions_udllm=await in_sessions_udllm(chain.reads, saved, height),
            earned_unclaimed_udllm=self.connection.earned_unclaimed_udllm(),
            height=height,
            play_money=self.play_money,
        )

    # -- asking -----------------------------------------------------------------------------------------------

    async def ask(self, messages: Sequence[ChatMessage], options: AskOptions) -> AsyncGenerator[AskEvent]:
        """See `ChatDoor`."""
        await self._reopen_if_lost()
        await self.connection.sync()
        asked_ms = time.time_ns() // 1_000_000
        model = options.model or await self.default_model()
        if self.config.speculation == "off":
            options = replace(options, speculation=False)
        conversation = Conversation(self.chain, options, model, self._token_logs)
        self._running = conversation
        try:
            async with contextlib.aclosing(conversation.events(messages)) as events:
                async for event in events:
                    yield event
            answer = await finish_answer(
                self.chain,
                conversation,
                messages,
                self.paths.receipts,
                badge=self.bundle.badge,
                asked_ms=asked_ms,
            )
            yield Answered(answer)
        except DllmError:
            yield conversation.spent
            raise
        finally:
            self._running = None

    def stop(self) -> None:
        """See `ChatDoor`."""
        if self._running is not None:
            self._running.stop()

    # -- sessions ---------------------------------------------------------------------------------------------

    async def close_sessions(self) -> None:
        """See `ChatDoor`."""
        await self.close_all()

    async def close_all(self) -> list[Closed]:
        """Settle every open session that no other process uses; report each."""
        chain = self.chain
        closed = []
        for saved in chain.sessions.store.all(chain.chain_id, chain.purse.account, open_only=True):
            async with self._claimed(saved.route.session) as mine:
                if not mine:
                    continue
                fresh = chain.sessions.store.load(saved.route.session)
                if fresh is not None:
                    closed.append(await self._close(fresh.route.session))
        return closed

    async def close_session(self, session_id: bytes) -> Closed:
        """Settle one session.

        Raises:
            LockBusy: another process uses it.
        """
        async with self._claimed(session_id) as mine:
            if not mine:
                raise LockBusy(
                    f"session {session_id.hex()} is in use by another dllm", hint="close that one first"
                )
            return await self._close(session_id)

    @contextlib.asynccontextmanager
    async def _claimed(self, session_id: bytes) -> AsyncIterator[bool]:
        """Hold a session; yields False where somebody else goes on using it."""
        clock = self.chain.reads.client.clock
        deadline = clock.monotonic_s() + _CLAIM_WAIT_S
        while True:
            with self.chain.sessions.store.claim(session_id) as mine:
                if mine or clock.monotonic_s() >= deadline:
                    yield mine
                    return
            await clock.sleep(_CLAIM_POLL_S)

    async def _close(self, session_id: bytes) -> Closed:
        """Close one session; on networks with a short grace, wait for it and finish."""
        chain = self.chain
        params = await chain.sender.params()
        fees_udllm = 0
        for _ in range(_CLOSE_TRIES):
            saved = chain.sessions.store.load(session_id)
            if saved is None:
                raise NotFound(f"session {session_id.hex()} is not known here")
            if await chain.sessions.still_open(saved):
                saved = await agree_on_the_end(chain, saved)
            closed = await chain.sessions.close(saved)
            fees_udllm += closed.fee_udllm
            closed = replace(closed, fee_udllm=fees_udllm)
            if closed.settled or params.close_grace_ms > _LONG_GRACE_MS:
                return closed
            await self._wait_for_block_time(closed.until_ms, params.close_grace_ms + 3 * params.heartbeat_ms)
        return closed

    async def _wait_for_block_time(self, time_ms: int, timeout_ms: int) -> None:
        """Until a verified block's time is that, which the chain's heartbeat brings; or the timeout."""
        light = self.chain.reads.client
        deadline = light.clock.monotonic_s() + timeout_ms / 1000
        while light.clock.monotonic_s() < deadline:
            if (await light.sync()).time.to_ms() >= time_ms:
                return
            await light.clock.sleep(_BLOCK_POLL_S)

    # -- contributing -----------------------------------------------------------------------------------------

    async def worker_on(
        self,
        model_file: Path | None = None,
        server: ServingFrom | None = None,
        pieces: ServingPieces | None = None,
    ) -> None:
        """See `ChatDoor`; ``server`` computes the rows where one is named, ``pieces`` are served instead of a file."""
        await self.connection.worker_on(self.chain, model_file, server, pieces)

    async def worker_off(self) -> None:
        """See `ChatDoor`."""
        await self.connection.worker_off()

    async def worker_status(self) -> WorkerStatus:
        """See `ChatDoor`."""
        return self.connection.worker_status()


def _to_nobody(text: str) -> None:
    """Progress of a service that was not opened yet."""
