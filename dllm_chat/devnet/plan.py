"""What a devnet consists of, and where: decided when it is founded, the same at every start.

devnet.json     the plan; written last, so that a folder without it was never finished
network.bundle  what others join it with
genesis         its chain's beginning
nodes/node-N    a node's home         workers/worker-N   a worker's home        faucet/   the faucet's home
relay/          the relay's folder, where there is one
model/package   the model in pieces, where it is served in slices
logs/           what the parts print
door.json       port and token of the supervisor that runs; supervisor.lock is held by it
data/ state/    the devnet's own home: the folder itself can be a DLLM_HOME
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dllm_chat.devnet.errors import DevnetRefused, NoDevnet
from dllm_chat.devnet.slices import Slot, deal
from dllm_chat.paths import write_private

SOLO, COMETBFT = "solo", "cometbft"
ENGINES = (SOLO, COMETBFT)
MAX_VALIDATORS = 16
MAX_WORKERS = 16
LOOPBACK = "127.0.0.1"
_FIRST_PORT, _LAST_PORT = 20_000, 32_000
_PORT_TRIES = 10_000
MAX_SPLIT = 16
"""Slices of the model: no route has more stages."""
_FORMAT, _VERSION = "dllm-devnet", 2
_VERSION_WITHOUT_SLICES = 1
_PARTS = (
    *("nodes", "workers", "faucet", "relay", "readiness", "manifest", "model", "logs"),
    *("genesis", "network.bundle"),
)
_OF_A_HOME = frozenset({"data", "state", "cache", "config.toml"})
_UNFINISHED = "founding"
_RUNNING_FILES = frozenset({"supervisor.lock", "door.json", "supervisor.log", _UNFINISHED})


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node: its name and where it listens on loopback."""

    name: str
    rpc_port: int
    p2p_port: int
    """0 on the solo engine, which has no peers."""
    peer_id: str = ""
    """Its name among peers, 40 hex digits; empty until its keys are made."""

    @property
    def url(self) -> str:
        """Its JSON-RPC over HTTP."""
        return f"http://{LOOPBACK}:{self.rpc_port}"

    @property
    def websocket(self) -> str:
        """Its JSON-RPC over websocket."""
        return f"ws://{LOOPBACK}:{self.rpc_port}/websocket"

    @property
    def peer_address(self) -> str:
        """Where peers reach it, ``id@host:port``."""
        return f"{self.peer_id}@{LOOPBACK}:{self.p2p_port}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole devnet."""

    engine: str
    nodes: tuple[NodePlan, ...]
    workers: tuple[str, ...]
    faucet_port: int
    model: str = ""
    """GGUF file that the workers serve; empty: the one in the package."""
    split: int = 0
    """Slices that the model is served in; 0: every worker has all of it."""
    slots: tuple[Slot, ...] = ()
    """Which worker has which slices."""
    cuts: tuple[int, ...] = ()
    """Borders of the slices in layers, from 0 to the number of layers; empty until the model is cut."""

    def layers_of(self, slot: Slot) -> tuple[int, int]:
        """The layers of a slot's slice: the first, and the one behind the last."""
        return self.cuts[slot.slice_], self.cuts[slot.slice_ + 1]

    relay_port: int = 0
    """Where the relay listens through which alone workers are reached; 0: there is none."""

    @property
    def size(self) -> str:
        """How much it is, in words."""
        parts = ((len(self.nodes), "node"), (len(self.workers), "worker"))
        counts = [f"{count} {what}" + ("" if count == 1 else "s") for count, what in parts]
        slices = [f"{self.split} slice{'' if self.split == 1 else 's'} of the model"] if self.split else []
        return ", ".join([*counts, *slices, "a faucet", *(["a relay"] if self.relay_port else [])])

    @property
    def faucet_url(self) -> str:
        """Where tokens are given away."""
        return f"http://{LOOPBACK}:{self.faucet_port}"

    @property
    def relay_url(self) -> str:
        """The relay's address; empty where there is none."""
        return f"ws://{LOOPBACK}:{self.relay_port}" if self.relay_port else ""


@dataclass(frozen=True, slots=True)
class Folder:
    """Paths inside a devnet's folder."""

    root: Path

    @property
    def plan(self) -> Path:
        """The plan's file."""
        return self.root / "devnet.json"

    @property
    def genesis(self) -> Path:
        """The chain's beginning, canonical bytes."""
        return self.root / "genesis"

    @property
    def bundle(self) -> Path:
        """What others join with."""
        return self.root / "network.bundle"

    @property
    def faucet(self) -> Path:
        """The faucet's home."""
        return self.root / "faucet"

    @property
    def relay(self) -> Path:
        """The relay's folder."""
        return self.root / "relay"

    @property
    def package(self) -> Path:
        """The model in pieces."""
        return self.root / "model" / "package"

    @property
    def logs(self) -> Path:
        """What the parts print."""
        return self.root / "logs"

    @property
    def door(self) -> Path:
        """Port and token of the supervisor that runs."""
        return self.root / "door.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor as long as it lives."""
        return self.root / "supervisor.lock"

    def node(self, name: str) -> Path:
        """A node's home."""
        return self.root / "nodes" / name

    def worker(self, name: str) -> Path:
        """A worker's home."""
        return self.root / "workers" / name


def make_plan(
    engine: str, validators: int, workers: int, model: str, split: int = 0, *, relay: bool = False
) -> Plan:
    """A plan with ports that are free now.

    Args:
        split: slices that the model is served in; 0: whole.

    Raises:
        DevnetRefused: an engine or numbers that there cannot be.
    """
    if engine not in ENGINES:
        raise DevnetRefused(f"--engine is {engine!r}", hint=f"it is one of: {', '.join(ENGINES)}")
    if not 1 <= validators <= MAX_VALIDATORS:
        raise DevnetRefused(f"--validators is {validators}; it must be 1 to {MAX_VALIDATORS}")
    if not 0 <= workers <= MAX_WORKERS:
        raise DevnetRefused(f"--workers is {workers}; it must be 0 to {MAX_WORKERS}")
    if not 0 <= split <= MAX_SPLIT:
        raise DevnetRefused(f"--split is {split}; it must be 1 to {MAX_SPLIT}, or 0 to serve the model whole")
    if split and not workers:
        raise DevnetRefused(f"--split is {split}, and there are no workers to have the slices")
    if engine == SOLO and validators != 1:
        raise DevnetRefused(
            f"the solo engine has one validator, asked were {validators}",
            hint=f"--engine {COMETBFT} takes several",
        )
    *ports, relay_port = _free_ports(2 * validators + 2)
    p2p = ports[validators : 2 * validators] if engine == COMETBFT else [0] * validators
    nodes = tuple(NodePlan(f"node-{n + 1}", ports[n], p2p[n]) for n in range(validators))
    names = tuple(f"worker-{n + 1}" for n in range(workers))
    own_relay = relay_port if relay else 0
    return Plan(engine, nodes, names, ports[-1], model, split, deal(split, names), relay_port=own_relay)


def write_plan(folder: Folder, plan: Plan) -> None:
    """Finish the founding: from now on the folder is a devnet."""
    document = {"format": _FORMAT, "version": _VERSION, **asdict(plan)}
    write_private(folder.plan, json.dumps(document, indent=2).encode() + b"\n")
    (folder.root / _UNFINISHED).unlink(missing_ok=True)


def read_plan(folder: Folder) -> Plan:
    """The devnet of a folder.

    Raises:
        NoDevnet: it has none.
        DevnetRefused: the file is damaged or of another version.
    """
    try:
        found = json.loads(folder.plan.read_bytes())
    except OSError as error:
        raise NoDevnet(f"there is no devnet in {folder.root}", hint="dllm devnet up makes one") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, str(error)) from error
    try:
        if found["format"] != _FORMAT or found["version"] not in (_VERSION_WITHOUT_SLICES, _VERSION):
            raise _damaged(folder, f"format {found['format']!r}, version {found['version']!r}")
        return _with_slices(
            found,
            Plan(
                engine=str(found["engine"]),
                nodes=tuple(
                    NodePlan(
                        str(one["name"]), int(one["rpc_port"]), int(one["p2p_port"]), str(one["peer_id"])
                    )
                    for one in found["nodes"]
                ),
                workers=tuple(str(name) for name in found["workers"]),
                faucet_port=int(found["faucet_port"]),
                model=str(found["model"]),
                relay_port=int(found.get("relay_port", 0)),
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, str(error)) from error


def _with_slices(document: dict[str, Any], plan: Plan) -> Plan:
    """The plan with what a document says of slices. One of version 1 says nothing: models were served whole.

    Raises:
        KeyError, TypeError, ValueError: it makes no sense.
    """
    if document["version"] == _VERSION_WITHOUT_SLICES:
        return plan
    split = int(document["split"])
    slots = tuple(Slot(str(one["worker"]), int(one["slice_"]), int(one["copy"])) for one in document["slots"])
    cuts = tuple(int(layer) for layer in document["cuts"])
    if len(cuts) != (split + 1 if split else 0) or list(cuts) != sorted(set(cuts)):
        raise ValueError(f"{split} slices are cut at {cuts}")
    stray = [slot for slot in slots if slot.worker not in plan.workers or not 0 <= slot.slice_ < split]
    if stray:
        raise ValueError(f"slot {stray[0]} is of no worker or of no slice")
    return replace(plan, split=split, slots=slots, cuts=cuts)


def check_folder(folder: Folder) -> None:
    """Whether a devnet can be founded there: it is new, empty, a home, or holds what a killed founding left.

    Raises:
        DevnetRefused: the folder holds something else.
    """
    marker = folder.root / _UNFINISHED
    found = {entry.name for entry in folder.root.iterdir()} if folder.root.exists() else set()
    strange = sorted(found - _OF_A_HOME - _RUNNING_FILES - ({"logs"} if not marker.exists() else set(_PARTS)))
    if strange:
        raise DevnetRefused(
            f"{folder.root} is no devnet's folder: it holds {', '.join(strange[:5])}",
            hint="name an empty or a new folder with --home",
        )


def prepare_folder(folder: Folder) -> None:
    """Make room for founding a devnet; sweep what a killed founding left.

    Raises:
        DevnetRefused: the folder holds something else.
    """
    check_folder(folder)
    write_private(folder.root / _UNFINISHED, b"")
    remove_parts(folder, keep_logs=True)


def remove_parts(folder: Folder, *, keep_logs: bool = False) -> None:
    """Remove the network's own files, not those of the home that the folder is as well."""
    for name in (*_PARTS, folder.plan.name):
        path = folder.root / name
        if keep_logs and name == "logs":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def taken_ports(plan: Plan) -> list[int]:
    """Ports of the plan on which somebody else listens now."""
    return [port for port in _ports_of(plan) if not _is_free(port)]


def _ports_of(plan: Plan) -> list[int]:
    pairs = [(node.rpc_port, node.p2p_port) for node in plan.nodes]
    others = (plan.faucet_port, plan.relay_port)
    return [port for ports in (*pairs, others) for port in ports if port]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as the parts do: a port just left is free
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _free_ports(count: int) -> list[int]:
    """Different loopback ports that are free now, outside the range that the system hands out by itself.

    So what takes any port meanwhile, or while the devnet is down, does not take one of these.
    """
    chosen: list[int] = []
    for _ in range(_PORT_TRIES):
        if len(chosen) == count:
            return chosen
        port = _FIRST_PORT + secrets.randbelow(_LAST_PORT - _FIRST_PORT)
        if port not in chosen and _is_free(port):
            chosen.append(port)
    raise DevnetRefused(f"no {count} free ports between {_FIRST_PORT} and {_LAST_PORT}")


def _damaged(folder: Folder, why: Any) -> DevnetRefused:
    return DevnetRefused(
        f"{folder.plan} cannot be read: {why}", hint="dllm devnet down --wipe removes this devnet"
    )
