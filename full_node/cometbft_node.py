"""A whole node on CometBFT: store and state machine behind ABCI, and the engine as a child; run and stopped in order.

CometBFT has the blocks, the peers and the JSON-RPC; this process has the state. Neither goes on without the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dllm_protocol.errors import DllmError
from dllm_protocol.exposition import Family
from dllm_protocol.genesis import Genesis, chain_id_of
from full_node.backup.home import require_confirmed
from full_node.consensus.abci.server import AbciServer
from full_node.consensus.cometbft.binary import find_cometbft, require_our_line
from full_node.consensus.cometbft.config import EngineConfig, Listen
from full_node.consensus.cometbft.driver import META_NAME, Driver
from full_node.consensus.cometbft.files import EngineFolder, forget_blocks, prepare_folder, write_files
from full_node.consensus.cometbft.process import CannotListen, CometBft, CometBftStopped
from full_node.consensus.cometbft.state_sync import StateSync
from full_node.files import write_private
from full_node.halting import Halt, clear_mark, halt_at, require_not_halted
from full_node.home import NodeHome, hold, read_genesis
from full_node.keys import load_key
from full_node.metrics.counts import NodeCounts, watched
from full_node.metrics.families import NodeFacts, node_families
from full_node.metrics.server import MetricsServer
from full_node.node import GC_THRESHOLDS, Running
from full_node.rpc.guard import Door
from full_node.settings import COMETBFT, NodeSettings
from full_node.state.snapshots import Restoration, Shelf, SnapshotSettings, SnapshotTaker
from full_node.state.store import DEFAULT_PROOF_WINDOW, Store
from full_node.state_machine.application import Application
from full_node.state_machine.genesis import check_genesis

log = logging.getLogger(__name__)
PORT_TRIES = 5
HALT_LINGER_S = 10.0
_ANY = Listen("127.0.0.1", 0)
_TAKEN = "address already in use"


@dataclass(frozen=True, slots=True)
class CometBftOptions:
    """How to run a node on CometBFT.

    Attributes:
        settings: engine, peers and where to begin.
        rpc, p2p: where CometBFT listens; port 0 = any that is free.
        external: host:port that peers are told; empty = `p2p`.
        moniker: the node's name.
        program: where `cometbft` is; None = looked for.
        proof_window: how many heights back proofs are given.
        block_window: how many blocks CometBFT keeps at least; 0 = all.
        snapshots: when snapshots are taken for others.
        prometheus: host:port for CometBFT's metrics; empty = none.
        metrics: where our metrics are served, followed by CometBFT's; None = nowhere.
        halt: where to stop for another program.
    """

    settings: NodeSettings
    rpc: Listen
    p2p: Listen
    external: str = ""
    moniker: str = "dllm-node"
    program: Path | None = None
    proof_window: int = DEFAULT_PROOF_WINDOW
    block_window: int = 0
    snapshots: SnapshotSettings = field(default_factory=SnapshotSettings)
    prometheus: str = ""
    metrics: Door | None = None
    halt: Halt = field(default_factory=Halt)


async def run_cometbft_node(
    home: NodeHome,
    options: CometBftOptions,
    stopped: Callable[[], Awaitable[object]],
    on_ready: Callable[[Running], None],
) -> None:
    """Runs a node until `stopped` returns.

    Args:
        home: its folder, initialised.
        options: how.
        stopped: returns when the node shall stop.
        on_ready: told once CometBFT's RPC listens.

    Raises:
        HaltReached: it stands at the height after which it was to halt.
        DllmError: it cannot start, or CometBFT ended; any exception of the application: it failed while running.
    """
    lock = hold(home)
    try:
        require_confirmed(home)
        require_not_halted(home, options.halt)
        program = find_cometbft(options.program)
        log.info("cometbft program=%s version=%s", program, require_our_line(program))
        load_key(home.key)  # CometBFT reads it itself; what is wrong with it is said better here
        genesis = read_genesis(home.genesis)
        check_genesis(genesis)
        folder = EngineFolder(home.cometbft)
        prepare_folder(folder)
        if options.settings.state_sync is not None:
            _forget_half_a_start(home, folder)
        with contextlib.ExitStack() as open_things:
            halted = asyncio.Event()
            counts, store = NodeCounts(), _open_store(home, options, open_things)
            driver = _open_driver(home, genesis, options, store, counts, halted.set, open_things)
            if not driver.has_halted:
                server = AbciServer(driver.handle, folder.socket)
                await server.start()
                facts = NodeFacts(chain_id_of(genesis), COMETBFT, version("dllm"), home.database)
                numbers = partial(node_families, facts, counts, store, None)
                ends = [server.wait_failed(), stopped(), _linger_after(halted)]
                try:
                    await _run_engine(home, genesis, options, program, numbers, ends, on_ready)
                except DllmError:
                    # Once halted, CometBFT is refused every other block; how it ends then says nothing.
                    if not driver.has_halted:
                        raise
                finally:
                    await server.stop()
            if driver.has_halted:
                raise halt_at(home, driver.height, driver.app_hash)
        log.info("stopped chain=%s height=%d", chain_id_of(genesis), driver.height)
    finally:
        os.close(lock)


async def _linger_after(halted: asyncio.Event) -> None:
    """Returns some time after the halt, in which peers that are a moment behind get the last block from here."""
    await halted.wait()
    await asyncio.sleep(HALT_LINGER_S)


def _forget_half_a_start(home: NodeHome, folder: EngineFolder) -> None:
    """Begins state sync anew where it ended between restoring the state and the first block after it.

    CometBFT writes its part of a restored state after ours; without both, neither can go on.
    """
    if not home.database.exists():
        return
    with contextlib.closing(Store(home.database)) as store:
        half = store.version > 0 and store.meta(META_NAME) is None
    if half:
        log.warning("state sync ended half way and begins anew")
        for name in ("", "-wal", "-shm"):
            home.database.with_name(home.database.name + name).unlink(missing_ok=True)
        forget_blocks(folder)


def _open_store(home: NodeHome, options: CometBftOptions, open_things: contextlib.ExitStack) -> Store:
    return open_things.enter_context(
        contextlib.closing(Store(home.database, proof_window=options.proof_window))
    )


def _open_driver(
    home: NodeHome,
    genesis: Genesis,
    options: CometBftOptions,
    store: Store,
    counts: NodeCounts,
    on_halt: Callable[[], None],
    open_things: contextlib.ExitStack,
) -> Driver:
    shelf = Shelf(home.snapshots)
    chain_id = chain_id_of(genesis)
    taker = open_things.enter_context(
        contextlib.closing(SnapshotTaker(home.database, shelf, chain_id, options.snapshots))
    )
    driver = Driver(
        store,
        watched(Application(store), counts, options.metrics),
        genesis,
        StateSync(shelf, taker, Restoration(store, chain_id)),
        version=version("dllm"),
        block_window=options.block_window,
        halt_height=options.halt.height,
        on_halt=on_halt,
    )
    driver.open()
    return driver


async def _run_engine(
    home: NodeHome,
    genesis: Genesis,
    options: CometBftOptions,
    program: Path,
    numbers: Callable[[], Iterable[Family]],
    reasons: Sequence[Awaitable[object]],
    on_ready: Callable[[Running], None],
) -> None:
    """Runs CometBFT until one of the reasons to end it returns, or raises, or CometBFT ends."""
    ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(reason) for reason in reasons]
    try:
        started = asyncio.ensure_future(_start_engine(home, genesis, options, program))
        await asyncio.wait((started, *ends), return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            started.cancel()
            await asyncio.gather(started, return_exceptions=True)
            _raise_first(ends)
            return
        engine, config = started.result()
        ends.append(asyncio.ensure_future(engine.wait()))
        doors = contextlib.AsyncExitStack()
        try:
            metrics = await _open_metrics(options, config, numbers, doors)
            running = Running(str(config.rpc), os.getpid(), chain_id_of(genesis), metrics)
            write_private(home.rpc, json.dumps(running.document()).encode() + b"\n")
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            log.info("listening address=%s chain=%s p2p=%s", running.address, running.chain_id, config.p2p)
            clear_mark(home)
            on_ready(running)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            _raise_first(ends)
        finally:
            home.rpc.unlink(missing_ok=True)
            await doors.aclose()
            await engine.stop()
    finally:
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


async def _open_metrics(
    options: CometBftOptions,
    config: EngineConfig,
    numbers: Callable[[], Iterable[Family]],
    doors: contextlib.AsyncExitStack,
) -> str:
    """Serves our metrics and, behind them, CometBFT's; returns where, or nothing where nobody asked."""
    if options.metrics is None:
        return ""

    async def collect() -> Iterable[Family]:
        return numbers()

    return await doors.enter_async_context(
        MetricsServer(options.metrics, collect, passed_on=config.prometheus)
    )


def _raise_first(ends: Sequence[asyncio.Future[Any]]) -> None:
    """Raises what ended the node; in their order, for a failed application ends CometBFT as well."""
    for end in ends:
        if end.done():
            end.result()


async def _start_engine(
    home: NodeHome, genesis: Genesis, options: CometBftOptions, program: Path
) -> tuple[CometBft, EngineConfig]:
    """Starts CometBFT, again on other ports where somebody took one that was free a moment ago."""
    folder = EngineFolder(home.cometbft)
    for left in reversed(range(PORT_TRIES)):
        config = _config(genesis, options)
        write_files(folder, genesis, config)
        engine = CometBft(program, folder, home.logs / "cometbft.log", config.rpc, config.p2p)
        try:
            await engine.start()
        except CometBftStopped as error:
            await engine.stop()
            taken = isinstance(error, CannotListen) or _TAKEN in error.message
            if left and taken and 0 in (options.rpc.port, options.p2p.port):
                continue
            raise
        except BaseException:
            await engine.stop()
            raise
        return engine, config
    raise CometBftStopped("no free port was found")


def _config(genesis: Genesis, options: CometBftOptions) -> EngineConfig:
    return EngineConfig(
        moniker=options.moniker,
        rpc=_with_port(options.rpc),
        p2p=_with_port(options.p2p),
        external=options.external,
        seeds=options.settings.seeds,
        peers=options.settings.peers,
        heartbeat_ms=genesis.params.heartbeat_ms,
        trusting_period_ms=genesis.params.trusting_period_ms,
        state_sync=options.settings.state_sync,
        prometheus=options.prometheus or (str(_with_port(_ANY)) if options.metrics else ""),
    )


def _with_port(listen: Listen) -> Listen:
    """The same with a port that is free now, where the system shall choose."""
    if listen.port:
        return listen
    with socket.socket(socket.AF_INET6 if ":" in listen.host else socket.AF_INET) as probe:
        probe.bind((listen.host, 0))
        return replace(listen, port=probe.getsockname()[1])
