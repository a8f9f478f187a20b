"""A devnet's parts, running: nodes, then the bundle, then workers and the faucet.

A part that dies stays dead until somebody restarts it: what happens then is what a devnet is for.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from dllm_chat.contributing import STATUS_FILE, run_json, served_slices
from dllm_chat.devnet.errors import DevnetFailed, DevnetRefused
from dllm_chat.devnet.founding import found
from dllm_chat.devnet.homes import OwnHome
from dllm_chat.devnet.offered import until_offered
from dllm_chat.devnet.parts import (
    WORKER_BUNDLE,
    bundle_command,
    bundle_for_worker,
    devnet_worker_command,
    faucet_command,
    node_command,
    relay_command,
)
from dllm_chat.devnet.plan import Folder, Plan, read_plan, taken_ports
from dllm_chat.embedded.processes import Child
from dllm_chat.paths import find_paths, make_private_folder, write_private
from dllm_protocol.bundle import SignedBundle, fingerprint
from dllm_protocol.errors import DllmError
from light_node.source import RpcSource

START_TIMEOUT_S = 120.0
"""For each step: many processes may share few cores."""
SLICES_TIMEOUT_S = 1200.0
"""For a worker that assembles its slices of a large model, for the first time."""
STOP_TIMEOUT_S = 20.0
FAUCET, RELAY = "faucet", "relay"
CLIENT_PAUSES_S = (1.0, 3.0)
"""Workers and the faucet are started again if they end before they serve: the chain may need a moment more."""
_POLL_S = 0.05
_STALE_NS = 60 * 1_000_000_000
_LOG_BYTES = 4 << 20
_TAIL_CHARACTERS = 400
log = logging.getLogger("dllm.devnet")

Say = Callable[[str], Awaitable[None]]


class Devnet:
    """One folder's devnet."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._children: dict[str, Child] = {}
        self._plan: Plan | None = None

    @property
    def plan(self) -> Plan:
        """What it consists of. Raises NoDevnet before it is founded."""
        self._plan = self._plan or read_plan(self.folder)
        return self._plan

    async def start(self, wanted: Plan | None, fund: Sequence[bytes], say: Say) -> dict[str, Any]:
        """Bring everything up; return what people need to know of it.

        Args:
            wanted: found this one first; None where the folder has one.
            fund: see `founding.found`.

        Raises:
            DevnetFailed: with the end of the failing program's log.
        """
        if wanted is not None:
            pieces = ", cutting the model into pieces" if wanted.split else ""
            await say(f"making keys and a genesis{pieces}: {wanted.size}")
            await found(self.folder, wanted, fund)
        plan = self.plan
        if taken := taken_ports(plan):
            raise DevnetFailed(
                f"another program listens on port {', '.join(map(str, taken))} of {self.folder.root}'s devnet",
                hint="end that program, or begin a devnet anew: dllm devnet down --wipe",
            )
        await say(f"starting the nodes ({plan.engine})")
        await asyncio.gather(*(self._start_node(node.name) for node in plan.nodes))
        signed = await self._publish(plan)
        if plan.relay_port:
            await self._start_relay()
        await say("starting the workers and the faucet")
        await asyncio.gather(self._start_faucet(), *(self._start_worker(name) for name in plan.workers))
        await say("waiting until the workers are offered")
        await self._until_offered(signed)
        await asyncio.to_thread(OwnHome(find_paths(self.folder.root)).adopt, signed)
        return self._ready(plan, signed)

    async def stop(self) -> None:
        """End workers and faucet, then the nodes."""
        nodes = {node.name for node in self._plan.nodes} if self._plan else set()
        children = self._children.items()
        await asyncio.gather(*(child.stop() for name, child in children if name not in nodes))
        await asyncio.gather(*(child.stop() for name, child in children if name in nodes))

    def pids(self) -> dict[str, int]:
        """Process id of each part; 0 where it does not run."""
        return {name: child.pid if child.running else 0 for name, child in self._children.items()}

    async def kill(self, name: str) -> None:
        """End a part as a power cut does: no signal that it could hear, and whatever it started goes with it.

        Raises:
            DevnetRefused: there is no such part, or it does not run.
        """
        child = self._child(name)
        if not child.running:
            raise DevnetRefused(f"{name} does not run", hint=f"dllm devnet restart {name}")
        await child.kill()

    async def restart(self, name: str) -> None:
        """Stop a part if it runs, and start it again; returns when it serves.

        Raises:
            DevnetRefused, DevnetFailed
        """
        await self._child(name).stop()
        if name == FAUCET:
            await self._start_faucet()
        elif name == RELAY:
            await self._start_relay()
        elif name in self.plan.workers:
            await self._start_worker(name)
        else:
            await self._start_node(name)

    # -- parts ------------------------------------------------------------------------------------------------

    def _child(self, name: str) -> Child:
        try:
            return self._children[name]
        except KeyError:
            raise DevnetRefused(
                f"there is no part {name!r}", hint=f"there are: {', '.join(self._children)}"
            ) from None

    async def _start_node(self, name: str) -> None:
        node = next(one for one in self.plan.nodes if one.name == name)
        rpc_file = self.folder.node(name) / "rpc.json"
        rpc_file.unlink(missing_ok=True)
        child = await self._start(name, node_command(self.folder, self.plan, node))
        await self._until(rpc_file.exists, child)

    async def _start_worker(self, name: str) -> None:
        home = self.folder.worker(name)
        # Beside the status, what its light node trusted: that may have expired, and the bundle names a new header.
        for stale in (home / STATUS_FILE, *home.glob("light.db*")):
            stale.unlink(missing_ok=True)
        told = SignedBundle.decode(self.folder.bundle.read_bytes()).bundle
        write_private(home / WORKER_BUNDLE, bundle_for_worker(self.plan, name, told))
        child = await self._start(
            name, devnet_worker_command(self.folder, self.plan, name), restart_pauses_s=CLIENT_PAUSES_S
        )
        await self._until(
            lambda: self._worker_status(name).get("state") == "serving",
            child,
            SLICES_TIMEOUT_S if self.plan.split else START_TIMEOUT_S,
        )

    async def _start_faucet(self) -> None:
        home = self.folder.faucet
        for stale in (home / "faucet.json", *home.glob("light.db*")):
            stale.unlink(missing_ok=True)
        command = faucet_command(self.folder, self.plan)
        child = await self._start(FAUCET, command, restart_pauses_s=CLIENT_PAUSES_S)
        await self._until((home / "faucet.json").exists, child)

    async def _start_relay(self) -> None:
        running = self.folder.relay / "relay.json"
        running.unlink(missing_ok=True)
        await self._until(running.exists, await self._start(RELAY, relay_command(self.folder, self.plan)))

    async def _start(self, name: str, command: list[str], restart_pauses_s: tuple[float, ...] = ()) -> Child:
        logs = make_private_folder(self.folder.logs)
        path = logs / f"{name}.out"
        if path.exists() and path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(".old"))
        child = Child(name, command, path)
        child.restart_pauses_s = restart_pauses_s
        child.stop_timeout_s = STOP_TIMEOUT_S
        self._children[name] = child
        await child.start()
        return child

    async def _until(
        self, ready: Callable[[], bool], child: Child, timeout_s: float = START_TIMEOUT_S
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not ready():
            if child.failed or loop.time() > deadline:
                reason = child.failed or f"{child.name} was not ready after {timeout_s:g} s"
                tail = child.log_tail()[-_TAIL_CHARACTERS:]
                raise DevnetFailed(f"{reason}: {tail}", hint=f"see {self.folder.logs}")
            await asyncio.sleep(_POLL_S)
        child.restart_pauses_s = ()  # from now on it stays as it is

    def _worker_status(self, name: str) -> dict[str, Any]:
        """What the worker that runs now says of itself; nothing where only an earlier one spoke."""
        try:
            found = json.loads((self.folder.worker(name) / STATUS_FILE).read_text())
        except (OSError, ValueError):
            return {}
        is_its = isinstance(found, dict) and found.get("pid") == self._children[name].pid
        return found if is_its else {}

    # -- the whole --------------------------------------------------------------------------------------------

    async def _publish(self, plan: Plan) -> SignedBundle:
        """The bundle, as soon as the chain has a fresh block to trust."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_TIMEOUT_S
        problem = ""
        while loop.time() < deadline:
            try:
                if await self._age_ns(plan) < _STALE_NS:
                    answer = await run_json(bundle_command(self.folder, plan), START_TIMEOUT_S)
                    return await asyncio.to_thread(self._keep_bundle, Path(answer["file"]))
                problem = "the newest block is old"
            except DllmError as error:
                problem = error.message
            await asyncio.sleep(_POLL_S)
        raise DevnetFailed(f"the chain makes no blocks: {problem}", hint=f"see {self.folder.logs}")

    def _keep_bundle(self, made: Path) -> SignedBundle:
        raw = made.read_bytes()
        write_private(self.folder.bundle, raw)
        return SignedBundle.decode(raw)

    async def _age_ns(self, plan: Plan) -> int:
        source = RpcSource(plan.nodes[0].websocket)
        try:
            return time.time_ns() - (await source.signed_header(None)).header.time.to_ns()
        finally:
            await source.close()

    async def _until_offered(self, signed: SignedBundle) -> None:
        offers: dict[str, list[str]] = defaultdict(list)
        for name in self.plan.workers:
            for one in served_slices(self._worker_status(name)):
                offers[one.model].append(one.provider)
        folder = make_private_folder(self.folder.root / "readiness")
        for stale in folder.glob("light.db*"):
            stale.unlink()
        await until_offered(signed.bundle, folder, offers, START_TIMEOUT_S)

    def _ready(self, plan: Plan, signed: SignedBundle) -> dict[str, Any]:
        models = sorted({str(self._worker_status(name).get("model")) for name in plan.workers})
        return {
            "home": str(self.folder.root),
            "engine": plan.engine,
            "size": plan.size,
            "chain_id": signed.bundle.chain_id,
            "bundle": str(self.folder.bundle),
            "fingerprint": fingerprint(signed.signer),
            "faucet": plan.faucet_url,
            "models": models,
            "nodes": [{"name": node.name, "url": node.url} for node in plan.nodes],
            "workers": list(plan.workers),
        }
