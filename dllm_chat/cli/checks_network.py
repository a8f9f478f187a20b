"""What `dllm doctor` asks a joined network: whether it answers, which time it has, which formats, and what is trusted.

Only nodes that the person joined, and witnesses that they added, are asked; never a time server or another third party.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import quote, urlsplit

from dllm_chat.cli.check import Check, State
from dllm_chat.network.lighting import nodes_of
from dllm_chat.network.witnesses import own_witnesses
from dllm_chat.paths import Paths
from dllm_chat.sanitize import clean_line
from dllm_chat.session.networks import joined_network, light_store_file
from dllm_protocol.bundle import NetworkBundle
from dllm_protocol.endpoints import RELAY_PREFIX
from dllm_protocol.errors import DllmError
from dllm_protocol.header import BLOCK_VERSION, Header
from light_node.channel.dialing import dial
from light_node.source import RpcSource

ANSWER_S = 8.0
NODES_MAX = 8
DRIFT_S = 10
"""How far ahead of our clock a light node lets a header's time lie."""
QUIET_HEARTBEATS = 3
SLACK_S = 60
EXPIRES_SOON = 0.25
"""Share of the trusting period below which it is time to look."""
NS_PER_S = 1_000_000_000
_ENDPOINTS_MAX = 8


@dataclass(frozen=True, slots=True)
class Asked:
    """One node's newest header, or why there is none."""

    url: str
    header: Header | None
    problem: str = ""


async def network_checks(paths: Paths) -> list[Check]:
    """Everything that needs the joined network; nothing where none was joined."""
    try:
        joined = joined_network(paths)
        bundle = joined.bundle if joined is not None else None
        own = own_witnesses(paths, bundle.chain_id) if bundle is not None else ()
    except DllmError:
        return []  # said by the check of the network's file
    checks = [check async for check in _endpoints(paths)]
    if bundle is None:
        return checks
    asked = await asyncio.gather(*(_ask(url) for url in nodes_of(bundle, own)[:NODES_MAX]))
    return [*_reached(asked, bundle), *clock_checks(asked, bundle), *_trust(paths, bundle), *checks]


async def _ask(url: str) -> Asked:
    source = RpcSource(url, timeout_s=ANSWER_S)
    try:
        return Asked(url, (await source.signed_header(None)).header)
    except DllmError as error:
        return Asked(url, None, error.message)
    finally:
        await source.close()


def _reached(asked: Sequence[Asked], bundle: NetworkBundle) -> Iterator[Check]:
    answering = [one for one in asked if one.header is not None and one.header.chain_id == bundle.chain_id]
    for one in asked:
        if one.header is None:
            state: State = "warn" if answering else "fail"
            yield Check(
                "node", state, f"{one.url}: {one.problem}", "is this machine online? is the node running?"
            )
        elif one.header.chain_id != bundle.chain_id:
            found = f"{one.url} is on chain {one.header.chain_id}, joined was {bundle.chain_id}"
            yield Check("node", "fail", found, "take it out of your witnesses, or join the network anew")
        elif one.header.block_version != BLOCK_VERSION:
            found = f"{one.url} makes blocks of version {one.header.block_version}, known is {BLOCK_VERSION}"
            yield Check("node", "fail", found, "upgrade dllm")
        else:
            version = f"block version {one.header.block_version}, app version {one.header.app_version}"
            yield Check("node", "ok", f"{one.url} at height {one.header.height}, {version}")
    if len(answering) == 1 and len(asked) > 1:
        yield Check("witnesses", "warn", "one node answers", "nobody contradicts it: add a witness")


def clock_checks(asked: Sequence[Asked], bundle: NetworkBundle, now_ns: int | None = None) -> Iterator[Check]:
    """This machine's clock against the median of the nodes' newest header times."""
    now_s = (time.time_ns() if now_ns is None else now_ns) / NS_PER_S
    times_s = [
        one.header.time.to_ns() / NS_PER_S
        for one in asked
        if one.header is not None and one.header.chain_id == bundle.chain_id
    ]
    if not times_s:
        return
    ahead_s = median(times_s) - now_s
    against = f"the newest headers of {len(times_s)} nodes"
    quiet_s = QUIET_HEARTBEATS * bundle.genesis.params.heartbeat_ms / 1000 + SLACK_S
    if ahead_s > DRIFT_S:
        yield Check(
            "clock and network", "fail", f"this clock is {ahead_s:.0f} s behind {against}",
            "set it, best by switching on time synchronisation (NTP)",
        )  # fmt: skip
    elif bundle.genesis.params.heartbeat_ms and -ahead_s > quiet_s:
        yield Check(
            "clock and network", "warn", f"{against} are {-ahead_s:.0f} s old, at most {quiet_s:.0f} s are usual",
            "either this clock is ahead, or the network stands still",
        )  # fmt: skip
    else:
        yield Check("clock and network", "ok", f"{-ahead_s:.0f} s after {against}")


def _trust(paths: Paths, bundle: NetworkBundle) -> Iterator[Check]:
    """How old what this home trusts is; read from the store alone."""
    file = light_store_file(paths, bundle.chain_id)
    if not file.exists():
        yield Check("trust", "ok", "nothing verified yet: the bundle's root is the beginning")
        return
    try:
        latest = _newest_trusted(file)
    except (sqlite3.Error, DllmError) as error:
        yield Check(
            "trust", "fail", f"{file}: {error}", "move the file away: trust then begins at the bundle's root"
        )
        return
    if latest is None:
        yield Check("trust", "ok", "nothing verified yet: the bundle's root is the beginning")
        return
    period_s = bundle.genesis.params.trusting_period_ms / 1000
    age_s = time.time() - latest.time.to_ns() / NS_PER_S
    found = f"height {latest.height}, {age_s / 3600:.1f} h old of {period_s / 3600:.0f} h"
    if age_s >= period_s:
        yield Check("trust", "fail", f"expired: {found}", "dllm light trust refresh, against two nodes")
    elif period_s - age_s < EXPIRES_SOON * period_s:
        yield Check("trust", "warn", found, "dllm light sync renews it")
    else:
        yield Check("trust", "ok", found)


def _newest_trusted(file: Path) -> Header | None:
    """The newest header in a trust store, read without upgrading or mending anything."""
    with contextlib.closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as database:
        row = database.execute("SELECT header FROM light_blocks ORDER BY height DESC LIMIT 1").fetchone()
    return Header.decode(row[0]) if row is not None else None


async def _endpoints(paths: Paths) -> AsyncIterator[Check]:
    """Whether the addresses that this home's worker announced can be reached from here."""
    for url in _announced(paths.data / "worker" / "status.json"):
        if url.startswith(RELAY_PREFIX):
            yield await _at_relay(url)
            continue
        host, port = _place(url)
        try:
            async with asyncio.timeout(ANSWER_S):
                _, writer = await asyncio.open_connection(host, port)
            writer.close()
            with contextlib.suppress(OSError):  # the other side may have closed it first
                await writer.wait_closed()
        except (OSError, TimeoutError, ValueError) as error:
            yield Check(
                "announced endpoint", "fail", f"{url[:200]}: {error or 'no answer in time'}",
                "forward the port to this machine, or announce another address",
            )  # fmt: skip
        else:
            yield Check("announced endpoint", "ok", f"{url[:200]} can be reached from here")


async def _at_relay(url: str) -> Check:
    """Whether the worker answers when somebody asks for it at its relay."""
    try:
        link = await dial((url,), timeout_ms=int(ANSWER_S * 1000))
    except DllmError as error:
        return Check(
            "announced endpoint", "fail", clean_line(error.message, 400),
            "is the relay there, and does the worker run? dllm worker status says how it stands",
        )  # fmt: skip
    await link.close()
    return Check("announced endpoint", "ok", f"{url[:200]} can be reached from here")


def _announced(status: Path) -> list[str]:
    """Endpoints of a worker that serves; none where none does."""
    try:
        found = json.loads(status.read_text())
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(found, dict) or found.get("state") != "serving":
        return []
    endpoints = found.get("endpoints")
    known = endpoints if isinstance(endpoints, list) else []
    return [one for one in known if isinstance(one, str)][:_ENDPOINTS_MAX]


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)
