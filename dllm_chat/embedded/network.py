"""Node and workers of one embedded network, as the supervisor runs them."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from dllm_chat.contributing import STATUS_FILE, run_json, worker_command, worker_keys
from dllm_chat.embedded.chain import LOCAL_PARAMS, make_genesis
from dllm_chat.embedded.clock import FLOOR_FILE, MAX_AHEAD_NS, JumpWatch
from dllm_chat.embedded.processes import Child
from dllm_chat.embedded.wire import EmbeddedFailed
from dllm_chat.paths import make_private_folder, write_private
from dllm_chat.serving_from import ServingFrom
from dllm_chat.wallet.play_wallet import bind_play_wallet, create_play_wallet
from dllm_protocol.bundle import BUNDLE_VERSION, NetworkBundle, SignedBundle
from dllm_protocol.errors import DllmError, MalformedBytes
from dllm_protocol.genesis import Genesis, chain_id_of
from light_node.source import RpcSource

WORKERS = 2
INIT_TIMEOUT_S = 60.0
NODE_START_TIMEOUT_S = 30.0
WORKER_START_TIMEOUT_S = 60.0
_POLL_S = 0.05
GENESIS_FILE = "genesis"
WORKER_BUNDLE = "bundle.workers"
_NS_PER_MS = 1_000_000
_STALE_NS = 60 * 1_000_000_000
log = logging.getLogger("dllm.embedded")

Say = Callable[[str], Awaitable[None]]


class LocalNetwork:
    """One home: a chain, its node, its workers, its wallet."""

    def __init__(self, home: Path, model: Path | None = None) -> None:
        """Prepare.

        Args:
            model: GGUF that the network's own workers serve; None = the one in the package.
        """
        self._home = home
        self._model = model
        self._node: Child | None = None
        self._workers: dict[str, Child] = {}
        self._floor_task: asyncio.Task[None] | None = None
        self._url = ""

    async def start(self, say: Say) -> dict[str, Any]:
        """Bring everything up; return what users need: the model's name.

        Raises:
            EmbeddedFailed: with the end of the failing program's log.
        """
        genesis = await self._chain_and_node(say)
        await say("starting two workers")
        for number in range(1, WORKERS + 1):
            await self._start_worker(f"worker-{number}", model=self._model)
        models = [await self._serving(f"worker-{number}") for number in range(1, WORKERS + 1)]
        await self._write_bundle(genesis)
        self._floor_task = asyncio.create_task(self._keep_floor())
        return {"model": models[0], "chain_id": chain_id_of(genesis)}

    async def _chain_and_node(self, say: Say) -> Genesis:
        """The home's chain, or a new one where there is none that can be used; its node runs then."""
        while True:
            genesis = self._genesis()
            if genesis is None:
                await say("making a new local chain")
                self._set_aside()
                genesis = await self._found()
            await say("starting the node")
            await self._start_node()
            if await self._newest_time_ns() <= time.time_ns() + MAX_AHEAD_NS:
                return genesis
            await say("the clock was set back: beginning a new local chain")
            if self._node is not None:
                await self._node.stop()
            self._set_aside()

    async def stop(self) -> None:
        """End workers, then the node."""
        if self._floor_task is not None:
            self._floor_task.cancel()
        await asyncio.gather(*(child.stop() for child in self._workers.values()))
        if self._node is not None:
            await self._node.stop()

    async def worker_on(self, owner: str, model: str, server: ServingFrom | None = None) -> None:
        """Start the person's own worker."""
        child = self._workers.get("worker-own")
        if child is not None and child.running:
            return
        await self._start_worker(
            "worker-own", owner=owner, model=Path(model) if model else None, server=server
        )

    async def worker_off(self) -> None:
        """Drain and stop the person's own worker."""
        child = self._workers.pop("worker-own", None)
        if child is not None:
            await child.stop()

    def status(self) -> dict[str, Any]:
        """Which children live."""
        children = {name: child.running for name, child in self._workers.items()}
        return {"node": bool(self._node and self._node.running), "workers": children, "url": self._url}

    # -- founding ---------------------------------------------------------------------------------------------

    def _genesis(self) -> Genesis | None:
        try:
            return Genesis.decode((self._home / GENESIS_FILE).read_bytes())
        except (OSError, MalformedBytes):
            return None

    def _set_aside(self) -> None:
        """Keep one older chain for looking at, play money is worth nothing; sweep what a killed founding left."""
        old = self._home / "old"
        keep = (self._home / GENESIS_FILE).exists()
        if keep:
            shutil.rmtree(old, ignore_errors=True)
            make_private_folder(old)
        workers = [f"worker-{number}" for number in range(1, WORKERS + 1)]
        leftovers = [
            *self._home.glob("bundle*"),
            *self._home.glob("light.db*"),
            *self._home.glob("genesis.*"),
        ]
        parts = [self._home / name for name in ("node", "wallet", *workers, "worker-own", FLOOR_FILE)]
        for path in (
            self._home / GENESIS_FILE,
            *parts,
            *leftovers,
        ):  # without a genesis it is no chain any more
            if keep and path.exists():
                path.rename(old / path.name)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    async def _found(self) -> Genesis:
        """Make a chain: keys of all parts first, then a genesis that funds them. ``genesis`` is written last."""
        wallet = create_play_wallet(make_private_folder(self._home / "wallet"))
        workers = await asyncio.gather(
            *(worker_keys(self._home / f"worker-{number}") for number in range(1, WORKERS + 1))
        )
        node_home = make_private_folder(self._home / "node")
        keys = await run_json([*_node("key"), "--home", str(node_home), "--json"], INIT_TIMEOUT_S)
        genesis = make_genesis(
            wallet=wallet.account_key().address,
            workers=[keys["operator"] for keys in workers],
            validator=bytes.fromhex(keys["public_key"]),
            genesis_time_ms=time.time_ns() // _NS_PER_MS,
            nonce=secrets.token_bytes(32),
        )
        genesis_file = self._home / "genesis.new"
        write_private(genesis_file, genesis.encode())
        await run_json(
            [*_node("init"), "--home", str(node_home), "--genesis", str(genesis_file), "--json"],
            INIT_TIMEOUT_S,
        )
        bind_play_wallet(self._home / "wallet", chain_id_of(genesis))
        genesis_file.replace(self._home / GENESIS_FILE)
        return genesis

    # -- running ----------------------------------------------------------------------------------------------

    async def _start_node(self) -> None:
        node_home = self._home / "node"
        rpc_file = node_home / "rpc.json"
        rpc_file.unlink(missing_ok=True)
        port = _free_port()
        self._node = Child(
            "the node",
            [*_node("start"), "--home", str(node_home), "--rpc-listen", f"127.0.0.1:{port}", "--lifeline"],
            self._log("node"),
        )
        await self._node.start()
        self._url = f"ws://127.0.0.1:{port}/websocket"
        await self._until(rpc_file.exists, self._node, NODE_START_TIMEOUT_S)
        await self._until_fresh()

    async def _newest_time_ns(self) -> int:
        source = RpcSource(self._url)
        try:
            return (await source.signed_header(None)).header.time.to_ns()
        finally:
            await source.close()

    async def _until_fresh(self) -> None:
        """After a long sleep the newest header is old, until the node has made the two blocks that this calls for."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + NODE_START_TIMEOUT_S
        while await self._newest_time_ns() < time.time_ns() - _STALE_NS:
            if loop.time() > deadline:
                raise EmbeddedFailed("the local chain makes no new blocks", hint=f"see {self._home / 'logs'}")
            await asyncio.sleep(_POLL_S)

    async def _start_worker(
        self, name: str, *, owner: str = "", model: Path | None = None, server: ServingFrom | None = None
    ) -> None:
        home = self._home / name
        # Beside the status, what its light node trusted: that may have expired, and the bundle names our newest header.
        for stale in (home / STATUS_FILE, *home.glob("light.db*")):
            stale.unlink(missing_ok=True)
        bundle_file = self._home / WORKER_BUNDLE
        if not bundle_file.exists() or name == "worker-1":
            await self._write_worker_bundle(bundle_file)
        command = worker_command(home, bundle_file, owner=owner, model=model, server=server, lifeline=True)
        child = Child(name, command, self._log(name))
        self._workers[name] = child
        await child.start()

    async def _serving(self, name: str) -> str:
        """Wait until a worker serves; return its model's name."""
        status_file = self._home / name / STATUS_FILE
        child = self._workers[name]

        def serves() -> bool:
            # What an earlier worker wrote as it went says nothing about this one.
            found = _read_json(status_file)
            return found.get("state") == "serving" and found.get("pid") == child.pid

        await self._until(serves, child, WORKER_START_TIMEOUT_S)
        return str(_read_json(status_file).get("model", ""))

    async def _until(self, ready: Callable[[], bool], child: Child, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not ready():
            if child.failed or loop.time() > deadline:
                reason = child.failed or f"{child.name} was not ready after {timeout_s:g} s"
                raise EmbeddedFailed(
                    f"{reason}: {child.log_tail()[-400:]}", hint=f"see {self._home / 'logs'}"
                )
            await asyncio.sleep(_POLL_S)

    async def _write_worker_bundle(self, path: Path) -> None:
        genesis = self._genesis()
        if genesis is None:
            raise EmbeddedFailed("the local chain's genesis is gone")
        write_private(path, await self._bundle(genesis))

    async def _write_bundle(self, genesis: Genesis) -> None:
        write_private(self._home / "bundle", await self._bundle(genesis))

    async def _bundle(self, genesis: Genesis) -> bytes:
        """The network's description; its trust root is our own node's newest header."""
        source = RpcSource(self._url)
        try:
            tip = await source.signed_header(None)
        finally:
            await source.close()
        bundle = NetworkBundle(
            BUNDLE_VERSION, genesis, tip.header.height, tip.header.hash(), (self._url,), (), (), ""
        )
        return SignedBundle(bundle, b"", b"").encode()

    async def _keep_floor(self) -> None:
        """Note the chain's newest block time now and then; begin the workers anew after a long sleep."""
        jumps = JumpWatch()
        while True:
            try:
                write_private(self._home / FLOOR_FILE, str(await self._newest_time_ns()).encode())
                if jumps.jumped_ns() > LOCAL_PARAMS.trusting_period_ms * _NS_PER_MS // 2:
                    await self._renew_workers()
            except DllmError as error:
                log.info(
                    "the clock is looked at again later: %s", error.message
                )  # the node is being restarted
            await asyncio.sleep(10.0)

    async def _renew_workers(self) -> None:
        """What their light nodes trust may have expired: give them the newest header to begin with."""
        log.info("the machine slept long: starting the workers again")
        await self._until_fresh()
        await self._write_worker_bundle(self._home / WORKER_BUNDLE)
        for name, child in self._workers.items():
            await child.stop()
            for stale in (self._home / name).glob("light.db*"):
                stale.unlink(missing_ok=True)
            await child.start()

    def _log(self, name: str) -> Path:
        path = make_private_folder(self._home / "logs") / f"{name}.out"
        if path.exists() and path.stat().st_size > 1 << 20:
            path.replace(path.with_suffix(".old"))
        return path


def _node(verb: str) -> list[str]:
    return [sys.executable, "-m", "full_node", verb]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _free_port() -> int:
    """A loopback port that is free now. Somebody else could take it before the node does: then it restarts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
