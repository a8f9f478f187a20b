"""A whole node: store, state machine, engine and RPC, put together, run and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from dllm_protocol.errors import UsageRefused
from dllm_protocol.exposition import Family
from dllm_protocol.genesis import chain_id_of
from full_node.backup.home import require_confirmed
from full_node.consensus.sign_state import SignState
from full_node.consensus.solo import SoloEngine
from full_node.consensus.solo_chain import SoloChain
from full_node.consensus.steady_clock import SteadyClock
from full_node.files import write_private
from full_node.halting import Halt, clear_mark, halt_at, require_not_halted
from full_node.home import NodeHome, hold, read_genesis
from full_node.keys import load_key
from full_node.metrics.counts import NodeCounts, watched
from full_node.metrics.families import NodeFacts, node_families
from full_node.metrics.server import MetricsServer
from full_node.rpc.context import NodeIdentity, RpcContext
from full_node.rpc.guard import Door
from full_node.rpc.server import RpcServer
from full_node.state.snapshots import Shelf, SnapshotSettings, SnapshotTaker
from full_node.state.store import DEFAULT_PROOF_WINDOW, Store
from full_node.state_machine.application import Application
from full_node.state_machine.genesis import check_genesis

log = logging.getLogger(__name__)
GC_THRESHOLDS = (50_000, 20, 100)
"""Blocks make many short-lived objects over a large, long-lived tree; collecting all of it often only costs
time.
"""


class CannotListen(UsageRefused):
    """The RPC's address is taken or not this machine's."""

    code = "E_LISTEN"


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """How to run a node.

    Attributes:
        door: where the RPC listens and whom it lets in.
        moniker: the node's name in `status`.
        proof_window: how many heights back proofs are given.
        block_window: how many blocks are kept; 0 = all.
        halt: where to stop for another program.
        snapshots: when snapshots of the state are taken.
        metrics: where Prometheus' metrics are served; None = nowhere.
    """

    door: Door
    moniker: str = "dllm-node"
    proof_window: int = DEFAULT_PROOF_WINDOW
    block_window: int = 0
    halt: Halt = field(default_factory=Halt)
    snapshots: SnapshotSettings = field(default_factory=SnapshotSettings)
    metrics: Door | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A node that listens."""

    address: str
    pid: int
    chain_id: str
    metrics: str = ""
    """Where the metrics are served, `host:port`; empty = nowhere."""

    def document(self) -> dict[str, str | int]:
        """What rpc.json says."""
        told: dict[str, str | int] = {"address": self.address, "pid": self.pid, "chain_id": self.chain_id}
        return told | {"metrics_address": self.metrics} if self.metrics else told


async def run_node(
    home: NodeHome,
    options: NodeOptions,
    stopped: Callable[[], Awaitable[object]],
    on_ready: Callable[[Running], None],
) -> None:
    """Runs a node until `stopped` returns; leaves nothing waiting behind.

    Args:
        home: its folder, initialised.
        options: how.
        stopped: returns when the node shall stop.
        on_ready: told once the RPC listens.

    Raises:
        HaltReached: it stands at the height after which it was to halt.
        DllmError: it cannot start; any exception of the engine: it failed while running.
    """
    lock = hold(home)
    try:
        require_confirmed(home)
        require_not_halted(home, options.halt)
        signer, genesis = load_key(home.key), read_genesis(home.genesis)
        check_genesis(genesis)
        store = Store(home.database, proof_window=options.proof_window, block_window=options.block_window)
        shelf, chain_id = Shelf(home.snapshots), chain_id_of(genesis)
        taker = SnapshotTaker(home.database, shelf, chain_id, options.snapshots)
        with contextlib.closing(store), contextlib.closing(taker):
            sign_state = SignState.load(home.sign_state)
            clock = SteadyClock()
            counts = NodeCounts()
            application = watched(Application(store), counts, options.metrics)
            chain = SoloChain(store, application, genesis, signer, sign_state, clock)
            engine = SoloEngine(
                chain, clock_ns=clock, halt_height=options.halt.height, on_committed=taker.note_committed
            )
            try:
                await engine.start()
                clear_mark(home)
                clock.raise_to(chain.state.voted_at.to_ns())
                await engine.until_provable()
                await _serve(home, options, engine, counts, stopped, on_ready)
            finally:
                await engine.stop()
        log.info("stopped chain=%s height=%d", chain_id, chain.state.height)
        if engine.has_halted:
            raise halt_at(home, chain.state.height, chain.state.app_hash)
    finally:
        os.close(lock)


async def _serve(
    home: NodeHome,
    options: NodeOptions,
    engine: SoloEngine,
    counts: NodeCounts,
    stopped: Callable[[], Awaitable[object]],
    on_ready: Callable[[Running], None],
) -> None:
    identity = NodeIdentity(options.moniker, version("dllm"))
    facts = NodeFacts(engine.chain_id, "solo", identity.version, home.database)

    async def collect() -> Iterable[Family]:
        return node_families(facts, counts, engine.store, await engine.pending(0))

    async with contextlib.AsyncExitStack() as open_doors:
        metrics = ""
        if options.metrics is not None:
            metrics = await open_doors.enter_async_context(MetricsServer(options.metrics, collect))
        context = RpcContext(engine, identity, requests=counts.rpc_requests)
        await _serve_rpc(home, options.door, context, metrics, (engine.wait, stopped), on_ready)


async def _serve_rpc(
    home: NodeHome,
    door: Door,
    context: RpcContext,
    metrics: str,
    reasons: Sequence[Callable[[], Awaitable[object]]],
    on_ready: Callable[[Running], None],
) -> None:
    """Serves until one of the reasons to end returns, or raises."""
    server = RpcServer(context, door)
    try:
        address = await server.start()
    except OSError as error:
        await server.stop()
        raise CannotListen(
            f"cannot listen on {door.host}:{door.port}: {error.strerror or error}",
            hint="give another --rpc-listen; port 0 lets the system choose",
        ) from error
    running = Running(address, os.getpid(), context.engine.chain_id, metrics)
    try:
        write_private(home.rpc, json.dumps(running.document()).encode() + b"\n")
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        log.info("listening address=%s chain=%s", running.address, running.chain_id)
        on_ready(running)
        ends = [asyncio.ensure_future(reason()) for reason in reasons]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                if end.done():
                    end.result()
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
    finally:
        home.rpc.unlink(missing_ok=True)
        await server.stop()
