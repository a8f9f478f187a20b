"""What `dllm-node doctor` looks at in a node's folder and on its machine. It changes nothing and starts no node."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from statistics import median
from typing import Any, Literal

import aiohttp

from dllm_protocol.errors import DllmError
from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.timestamp import Timestamp
from full_node.consensus.cometbft.binary import find_cometbft, require_our_line
from full_node.home import NodeHome, is_held, read_genesis, running_node
from full_node.keys import load_key
from full_node.settings import COMETBFT, read_settings
from full_node.state.schema import SCHEMA
from full_node.state_machine.genesis import check_genesis
from full_node.state_machine.upgrades.released import RELEASE

FREE_BYTES_MIN = 1 << 30
ROOM_FACTOR = 2
"""A copy of the database fits beside it: backups, upgrades and snapshots make one."""
DRIFT_S = 60
"""As CometBFT's block_time_tolerance: a validator refuses blocks that are further ahead of its clock."""
QUIET_HEARTBEATS = 3
SLACK_S = 60
ANSWER_S = 8.0
PEERS_MAX = 8
NS_PER_S = 1_000_000_000
_SQLITE_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One look: how it is, what was found, and what to do about it."""

    name: str
    state: State
    found: str
    hint: str = ""

    def document(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


async def examine(home: NodeHome, listens: Sequence[tuple[str, int]]) -> list[Finding]:
    """All looks at a node's folder.

    Args:
        listens: host and port of addresses that the node is to listen on, or that peers are told.
    """
    findings = [*_programs(home), *_folder(home), *_key(home)]
    genesis = _genesis(home, findings)
    findings += [*_database(home), *_disk(home), *_ports(home, listens)]
    if genesis is not None:
        findings += await _clock(home, genesis)
    return findings


def _guarded(name: str, look: Callable[[], str]) -> Finding:
    """A look whose failures are declared errors, with their own hints."""
    try:
        return Finding(name, "ok", look())
    except DllmError as error:
        return Finding(name, "fail", error.message, error.hint)


def _programs(home: NodeHome) -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    libraries = f"SQLite {sqlite3.sqlite_version}, PyNaCl {version('pynacl')}"
    rules = f"app version {RELEASE.app_version}, database version {SCHEMA.version}"
    yield Finding("versions", "ok", f"dllm {version('dllm')}, Python {python}, {libraries}; {rules}")

    def engine() -> str:
        settings = read_settings(home)
        if settings.engine != COMETBFT:
            return "solo, which needs no other program"
        program = find_cometbft()
        return f"{require_our_line(program)} at {program}"

    yield _guarded("engine", engine)


def _folder(home: NodeHome) -> Iterator[Finding]:
    mode = stat.S_IMODE(home.folder.stat().st_mode)
    if not os.access(home.folder, os.W_OK):
        yield Finding("folder", "fail", f"{home.folder} cannot be written", "change its owner")
    elif mode & 0o077:
        yield Finding("folder", "warn", f"{home.folder} has mode {mode:04o}", f"chmod 700 {home.folder}")
    else:
        yield Finding("folder", "ok", f"{home.folder} ({mode:04o})")


def _key(home: NodeHome) -> Iterator[Finding]:
    yield _guarded("key", lambda: f"public key {load_key(home.key).public_key.hex()}")


def _genesis(home: NodeHome, findings: list[Finding]) -> Genesis | None:
    try:
        genesis = read_genesis(home.genesis)
        check_genesis(genesis)
    except DllmError as error:
        findings.append(Finding("genesis", "fail", error.message, error.hint))
        return None
    findings.append(Finding("genesis", "ok", f"chain {chain_id_of(genesis)}"))
    return genesis


def _database(home: NodeHome) -> Iterator[Finding]:
    """Kind and version from the file's first bytes: nothing is opened or upgraded."""
    try:
        with home.database.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        yield Finding("database", "ok", "none yet: the first start makes it")
        return
    except OSError as error:
        yield Finding("database", "fail", f"{home.database}: {error.strerror}", "change its owner")
        return
    kind, found = int.from_bytes(head[68:72]), int.from_bytes(head[60:64])
    if not head.startswith(_SQLITE_MAGIC) or kind != SCHEMA.application_id:
        hint = "restore a backup, or join again by state sync"
        yield Finding("database", "fail", f"{home.database} is no node's database", hint)
    elif found > SCHEMA.version:
        said = f"version {found}, this program knows up to {SCHEMA.version}"
        yield Finding("database", "fail", said, "a newer dllm-node wrote it: start that one")
    else:
        yield Finding("database", "ok", f"version {found}")


def _disk(home: NodeHome) -> Iterator[Finding]:
    free = shutil.disk_usage(home.folder).free
    used = home.database.stat().st_size if home.database.exists() else 0
    wanted = max(FREE_BYTES_MIN, ROOM_FACTOR * used)
    found = (
        f"{free / 1e9:.1f} GB free, {wanted / 1e9:.1f} GB are wanted beside {used / 1e9:.1f} GB of database"
    )
    if free < FREE_BYTES_MIN:
        yield Finding("disk", "fail", found, "make room, or keep fewer blocks: --keep-blocks")
    elif free < wanted:
        yield Finding("disk", "warn", found, "an upgrade or a backup makes a copy of the database")
    else:
        yield Finding("disk", "ok", found)


def _ports(home: NodeHome, listens: Sequence[tuple[str, int]]) -> Iterator[Finding]:
    """Addresses that the node is to have: reachable while it runs, free while it does not."""
    for host, port in listens:
        name = f"port {host}:{port}"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.settimeout(ANSWER_S)
            try:
                if is_held(home):
                    probe.connect((host, port))
                    yield Finding(name, "ok", "answers")
                else:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((host, port))
                    yield Finding(name, "ok", "free")
            except OSError as error:
                hint = (
                    "open it in the firewall"
                    if is_held(home)
                    else "another program has it: choose another port"
                )
                yield Finding(name, "fail", str(error.strerror or error), hint)


async def _clock(home: NodeHome, genesis: Genesis) -> list[Finding]:
    """This clock against the median of the newest block times that the running node and its peers have."""
    try:
        address = str(running_node(home)["address"])
    except DllmError as error:
        return [Finding("node", "ok", error.message, error.hint)]
    try:
        times, peers = await _block_times(address)
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError, DllmError) as error:
        return [
            Finding(
                "node", "fail", f"{address} does not answer: {error or 'no answer in time'}", "see its log"
            )
        ]
    findings = [Finding("node", "ok", f"answers at {address}, {peers} peers")]
    return [*findings, clock_finding(times, genesis.params.heartbeat_ms, time.time_ns())]


def clock_finding(times: Sequence[Timestamp], heartbeat_ms: int, now_ns: int) -> Finding:
    """The clock's finding from the newest block times of some nodes."""
    ahead_s = (median(one.to_ns() for one in times) - now_ns) / NS_PER_S
    against = f"the newest block times of {len(times)} nodes"
    quiet_s = QUIET_HEARTBEATS * heartbeat_ms / 1000 + SLACK_S
    if ahead_s > DRIFT_S:
        hint = "set it, best by switching on time synchronisation (NTP)"
        return Finding("clock", "fail", f"this clock is {ahead_s:.0f} s behind {against}", hint)
    if heartbeat_ms and -ahead_s > quiet_s:
        hint = "either this clock is ahead, or the network stands still"
        return Finding("clock", "warn", f"{against} are {-ahead_s:.0f} s old", hint)
    return Finding("clock", "ok", f"{-ahead_s:.0f} s after {against}")


async def _block_times(address: str) -> tuple[list[Timestamp], int]:
    """Newest block times of the node and, where their RPC answers it, of its peers; and how many peers there are."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        times = [await _block_time(http, address)]
        net = await _result(http, f"http://{address}/net_info")
        peers = list(net.get("peers") or [])[:PEERS_MAX]
        for peer in peers:
            place = _rpc_of(peer)
            if not place:
                continue
            try:
                times.append(await _block_time(http, place))
            except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError, DllmError):
                continue  # peers need not show their RPC to anybody
        return times, int(net.get("n_peers") or 0)


async def _block_time(http: aiohttp.ClientSession, address: str) -> Timestamp:
    status = await _result(http, f"http://{address}/status")
    return Timestamp.from_rfc3339(str(status["sync_info"]["latest_block_time"]))


async def _result(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with http.get(url) as answer:
        document = await answer.json(content_type=None)
    return dict(document["result"])


def _rpc_of(peer: dict[str, Any]) -> str:
    """Where a peer's RPC is, as it told its peers; empty where it listens on its own machine alone."""
    host = str(peer.get("remote_ip", ""))
    told = str(peer.get("node_info", {}).get("other", {}).get("rpc_address", ""))
    port = told.rpartition(":")[2]
    on_loopback = "127.0.0.1" in told and not host.startswith("127.")
    return f"{host}:{port}" if host and port.isdigit() and not on_loopback else ""
