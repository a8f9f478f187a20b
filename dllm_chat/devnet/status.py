"""What a devnet's nodes say of themselves, asked side by side. Their word, not a proof: `dllm light` proves."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp

from dllm_chat.contributing import STATUS_FILE, served_slices
from dllm_chat.devnet.network import FAUCET, RELAY
from dllm_chat.devnet.plan import Folder, NodePlan, Plan

ANSWER_TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node."""

    name: str
    url: str
    pid: int
    """0 where it does not run."""
    running: bool
    height: int
    """Newest block; 0 where it does not answer."""
    app_hash: str
    """Application hash in that block's header: the state before it."""
    peers: int
    validator: bool
    """Whether it votes now."""
    catching_up: bool


async def devnet_status(folder: Folder, plan: Plan, pids: dict[str, int]) -> dict[str, Any]:
    """Everything that `dllm devnet status --json` shows.

    Args:
        pids: of the parts, by name; empty where the devnet does not run.
    """
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as client:
        nodes = await asyncio.gather(*(_node(client, node, pids.get(node.name, 0)) for node in plan.nodes))
    newest = max(nodes, key=lambda node: node.height)
    faucet_pid, relay_pid = pids.get(FAUCET, 0), pids.get(RELAY, 0)
    return {
        "home": str(folder.root),
        "running": bool(pids),
        "engine": plan.engine,
        "height": newest.height,
        "app_hash": newest.app_hash,
        "nodes": [asdict(node) for node in nodes],
        "workers": [_worker(folder, name, pids.get(name, 0)) for name in plan.workers],
        "faucet": {"url": plan.faucet_url, "pid": faucet_pid, "running": faucet_pid > 0},
        "relay": {"url": plan.relay_url, "pid": relay_pid, "running": relay_pid > 0}
        if plan.relay_port
        else None,
        "bundle": str(folder.bundle),
    }


async def _node(client: aiohttp.ClientSession, node: NodePlan, pid: int) -> NodeStatus:
    silent = NodeStatus(node.name, node.url, pid, pid > 0, 0, "", 0, validator=False, catching_up=False)
    if not pid:
        return silent
    try:
        told, net = await asyncio.gather(_ask(client, node, "status"), _ask(client, node, "net_info"))
        sync = told["sync_info"]
        return NodeStatus(
            name=node.name,
            url=node.url,
            pid=pid,
            running=True,
            height=int(sync["latest_block_height"]),
            app_hash=str(sync["latest_app_hash"]),
            peers=int(net["n_peers"]),
            validator=int(told["validator_info"]["voting_power"]) > 0,
            catching_up=bool(sync["catching_up"]),
        )
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
        return silent  # it runs and does not answer: height 0 says so


async def _ask(client: aiohttp.ClientSession, node: NodePlan, method: str) -> dict[str, Any]:
    async with client.get(f"{node.url}/{method}") as answer:
        raw = await answer.content.read(MAX_ANSWER_BYTES)
    return dict(json.loads(raw)["result"])


def _worker(folder: Folder, name: str, pid: int) -> dict[str, Any]:
    try:
        told = json.loads((folder.worker(name) / STATUS_FILE).read_text())
    except (OSError, ValueError):
        told = {}
    spoke = pid > 0 and isinstance(told, dict) and told.get("pid") == pid
    return {
        "name": name,
        "pid": pid,
        "running": pid > 0,
        "state": str(told.get("state", "")) if spoke else ("starting" if pid else "off"),
        "model": str(told.get("model", "")) if spoke else "",
        "provider": str(told.get("provider", "")) if spoke else "",
        "sessions": int(told.get("sessions", 0)) if spoke else 0,
        "slices": [asdict(one) for one in served_slices(told)] if spoke else [],
    }
