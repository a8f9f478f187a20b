"""The embedded engine: one validator that gives a block as soon as there is something to put into it.

A block is made when transactions wait (after a tiny moment to gather more), at once when the newest state
root stands in no header yet (the proof block), and when the chain has been quiet for genesis' heartbeat.
Nothing else makes blocks.

All work on chain, application and mempool runs on one thread of its own, so that the event loop keeps
answering.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import TypeVar

from dllm_protocol.consensus_params import ConsensusParams
from dllm_protocol.genesis import Genesis
from dllm_protocol.params import BLOCK_WEIGHT_MAX
from dllm_protocol.validator_set import ValidatorSet
from full_node.consensus.engine import CommittedBlock, EngineStopped, MempoolView, Submission
from full_node.consensus.events import EventBus
from full_node.consensus.mempool import Mempool, MempoolLimits, MempoolRefused
from full_node.consensus.solo_chain import SoloChain
from full_node.state.store import Store

log = logging.getLogger(__name__)
T = TypeVar("T")
NS_PER_MS = 1_000_000
_LAST_BLOCKS = 100
"""At a stop, at most so many blocks are made to leave nothing waiting."""


@dataclass(frozen=True, slots=True)
class SoloSettings:
    """Local choices, none of them consensus.

    Attributes:
        gather_ms: how long a lone transaction waits for company.
        block_txs: most transactions in a block.
        block_bytes: most bytes of transactions in a block.
        block_gas: most gas (weight by the fee schedule) in a block, so that dear actions make shorter blocks.
        inbox: most transactions that wait to be checked.
        admit_txs: most that are checked in one go between blocks.
        mempool: the mempool's bounds.
    """

    gather_ms: int = 8
    block_txs: int = 2_000
    block_bytes: int = 4 << 20
    block_gas: int = BLOCK_WEIGHT_MAX
    inbox: int = 10_000
    admit_txs: int = 512
    mempool: MempoolLimits = field(default_factory=MempoolLimits)


class SoloEngine:
    """Runs a `SoloChain` on the event loop."""

    def __init__(
        self,
        chain: SoloChain,
        *,
        settings: SoloSettings | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        halt_height: int = 0,
        on_committed: Callable[[int], None] = lambda _height: None,
    ) -> None:
        """Args:
        clock_ns: the wall clock in nanoseconds since 1970, the same that the chain has.
        halt_height: no block is made after this one, and the engine ends; 0 = none.
        on_committed: told the height of each block that is in the store.
        """
        self._halt_height = halt_height
        self._on_committed = on_committed
        self._chain = chain
        self._settings = settings or SoloSettings()
        self._clock_ns = clock_ns
        self._events = EventBus()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="chain")
        self._mempool = Mempool(chain.application.check_tx, self._settings.mempool)
        self._inbox: deque[tuple[bytes, asyncio.Future[Submission]]] = deque()
        self._settled: deque[tuple[asyncio.Future[Submission], Submission | MempoolRefused]] = deque()
        self._provable = asyncio.Event()
        self._wake = asyncio.Event()
        self._stopping = False
        self._first_waiting_ns: int | None = None
        self._newest_block_ns = time.monotonic_ns()
        self._task: asyncio.Task[None] | None = None

    @property
    def chain_id(self) -> str:
        """The chain's id."""
        return self._chain.chain_id

    @property
    def genesis(self) -> Genesis:
        """What the chain began from."""
        return self._chain.genesis

    @property
    def store(self) -> Store:
        """Blocks and state."""
        return self._chain.store

    @property
    def events(self) -> EventBus:
        """Where new blocks are told."""
        return self._events

    @property
    def params(self) -> ConsensusParams:
        """Consensus parameters in force."""
        return self._chain.params

    @property
    def validators(self) -> ValidatorSet:
        """The set that signs the next block."""
        return self._chain.state.validators

    @property
    def public_key(self) -> bytes:
        """This validator's key."""
        return self._chain.public_key

    async def start(self) -> None:
        """Opens the chain, finishing what a crash left, and begins to make blocks. Raises as
        `SoloChain.open`.
        """
        await self._on_chain_thread(self._chain.open)
        self._task = asyncio.create_task(self._run(), name="solo-engine")

    async def wait(self) -> None:
        """Returns when the engine was stopped; raises what made it fail."""
        assert self._task is not None, "the engine was not started"
        await asyncio.shield(self._task)

    async def until_provable(self) -> None:
        """Returns when a header proves the newest state, so that whoever asks gets an answer with a proof.

        Raises what made the engine fail before that.
        """
        assert self._task is not None, "the engine was not started"
        provable = asyncio.ensure_future(self._provable.wait())
        try:
            await asyncio.wait([provable, self._task], return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                self._task.result()
        finally:
            provable.cancel()

    async def stop(self) -> None:
        """Puts what waits into last blocks and stops; a failure of the engine is not raised again here."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task])
        await asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)

    @property
    def has_halted(self) -> bool:
        """Whether the chain stands at the height after which it was to halt."""
        return 0 < self._halt_height <= self._chain.state.height

    async def submit(self, raw: bytes) -> Submission:
        """Hands a transaction in; returns when CheckTx has decided.

        Raises:
            MempoolRefused: too large, a double, or no room.
            EngineStopped: no blocks are made any more.
        """
        self._require_running()
        if len(self._inbox) >= self._settings.inbox:
            raise MempoolRefused(
                f"{len(self._inbox)} transactions wait to be checked already", hint="try again in a moment"
            )
        decided: asyncio.Future[Submission] = asyncio.get_running_loop().create_future()
        self._inbox.append((raw, decided))
        self._wake.set()
        return await decided

    async def check(self, raw: bytes) -> Submission:
        """What CheckTx says, without handing the transaction in."""
        return await self._on_chain_thread(lambda: self._check_now(raw))

    async def pending(self, limit: int) -> MempoolView:
        """A look at the mempool."""
        return await self._on_chain_thread(lambda: self._mempool.view(limit))

    async def query(self, path: str, data: bytes) -> bytes | None:
        """Asks the application for a list."""
        return await self._on_chain_thread(lambda: self._chain.application.query(path, data))

    def _check_now(self, raw: bytes) -> Submission:
        result = self._chain.application.check_tx(raw, keep=False)
        return Submission(sha256(raw).digest(), result.code, result.log, result.codespace)

    def _require_running(self) -> None:
        if self._stopping or self._task is None or self._task.done():
            raise EngineStopped("the node is stopping and takes no more transactions")

    async def _on_chain_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except RuntimeError as error:
            if self._stopping:
                raise EngineStopped("the node is stopping") from error
            raise
        finally:
            self._settle()

    def _settle(self) -> None:
        while self._settled:
            decided, outcome = self._settled.popleft()
            if decided.done():
                continue  # whoever asked has gone
            if isinstance(outcome, MempoolRefused):
                decided.set_exception(outcome)
            else:
                decided.set_result(outcome)

    async def _run(self) -> None:
        try:
            while not (self._stopping or self.has_halted):
                self._wake.clear()
                if self._inbox:
                    await self._admit()
                if not self._chain.state.needs_proof_block:
                    self._provable.set()
                if self._block_is_due():
                    await self._make_block()
                elif not self._inbox:
                    await self._rest()
            await self._make_last_blocks()
        finally:
            self._stopping = True
            await self._on_chain_thread(self._mempool.settle_all)
            for _, decided in self._inbox:
                if not decided.done():
                    decided.set_exception(EngineStopped("the node is stopping"))
            self._events.close()

    async def _admit(self) -> None:
        batch = [self._inbox.popleft() for _ in range(min(len(self._inbox), self._settings.admit_txs))]
        await self._on_chain_thread(lambda: self._admit_batch(batch))
        if self._first_waiting_ns is None and len(self._mempool):
            self._first_waiting_ns = time.monotonic_ns()

    def _admit_batch(self, batch: list[tuple[bytes, asyncio.Future[Submission]]]) -> None:
        now_ns = time.monotonic_ns()
        for raw, decided in batch:
            try:
                self._mempool.add(raw, now_ns, partial(self._note_settled, decided))
            except MempoolRefused as refusal:
                self._note_settled(decided, refusal)

    def _note_settled(
        self, decided: asyncio.Future[Submission], outcome: Submission | MempoolRefused
    ) -> None:
        # On the chain thread; the event loop hands it on when the call that this happened in returns.
        self._settled.append((decided, outcome))

    def _block_is_due(self) -> bool:
        return self._ms_until_block() <= 0

    def _ms_until_block(self) -> float:
        state = self._chain.state
        if state.needs_proof_block or len(self._mempool) >= self._settings.block_txs:
            return 0
        if self._first_waiting_ns is not None:
            return self._settings.gather_ms - (time.monotonic_ns() - self._first_waiting_ns) / NS_PER_MS
        heartbeat_ms = self._chain.genesis.params.heartbeat_ms
        if heartbeat_ms == 0:
            return float("inf")
        # A header carries the time of the vote before it, so one block after a long sleep is stale by all of
        # it.
        since_vote_ms = (self._clock_ns() - state.voted_at.to_ns()) / NS_PER_MS
        since_header_ms = (self._clock_ns() - state.time.to_ns()) / NS_PER_MS
        # And a wall clock that was put back must not keep the chain silent until it has caught up.
        quiet_ms = (time.monotonic_ns() - self._newest_block_ns) / NS_PER_MS
        return heartbeat_ms - max(since_vote_ms, since_header_ms - heartbeat_ms, quiet_ms)

    async def _rest(self) -> None:
        wait_ms = self._ms_until_block()
        deadline_ns = self._mempool.next_deadline_ns()
        if deadline_ns is not None:
            wait_ms = min(wait_ms, (deadline_ns - time.monotonic_ns()) / NS_PER_MS)
        timeout_s = max(wait_ms, 0) / 1000 if wait_ms != float("inf") else None
        try:
            await asyncio.wait_for(self._wake.wait(), timeout_s)
        except TimeoutError:
            await self._on_chain_thread(lambda: self._mempool.expire(time.monotonic_ns()))

    async def _make_block(self) -> None:
        committed = await self._on_chain_thread(self._make_block_now)
        self._first_waiting_ns = time.monotonic_ns() if len(self._mempool) else None
        self._newest_block_ns = time.monotonic_ns()
        self._events.publish(committed)
        self._on_committed(committed.block.header.height)

    def _make_block_now(self) -> CommittedBlock:
        started_ns = time.monotonic_ns()
        limits = self._settings
        taken = self._mempool.reap(limits.block_bytes, limits.block_txs, limits.block_gas)
        committed = self._chain.make_block(taken)
        self._mempool.update(taken, time.monotonic_ns())
        log.info(
            "block height=%d txs=%d hash=%s took_ms=%d",
            committed.block.header.height,
            len(taken),
            committed.block_id.hash.hex().upper(),
            (time.monotonic_ns() - started_ns) // NS_PER_MS,
        )
        return committed

    async def _make_last_blocks(self) -> None:
        for _ in range(_LAST_BLOCKS):
            if self.has_halted:
                return
            if self._inbox:
                await self._admit()
            if not (self._inbox or len(self._mempool) or self._chain.state.needs_proof_block):
                return
            await self._make_block()
        log.warning("stopping with %d transactions waiting", len(self._mempool))
