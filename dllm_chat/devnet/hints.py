"""What to type where a devnet's own nodes are why nobody answers."""

from __future__ import annotations

import asyncio
import shlex

from dllm_chat.devnet.door import calling, is_running
from dllm_chat.devnet.plan import Folder, read_plan
from dllm_chat.paths import Paths
from dllm_chat.session.networks import network_in_use
from dllm_protocol.bundle import SignedBundle
from dllm_protocol.errors import DllmError

SUPERVISOR_TIMEOUT_S = 3.0


def restart_hint(paths: Paths) -> str:
    """How nodes that were killed are started again; empty where the network in use is no devnet of this home, or all
    of its nodes run.
    """
    for folder, option in _folders(paths):
        try:
            signed = SignedBundle.decode(folder.bundle.read_bytes())
            if signed.bundle.chain_id == network_in_use(paths):
                return _hint(folder, option)
        except (DllmError, OSError):
            continue
    return ""


def _folders(paths: Paths) -> list[tuple[Folder, str]]:
    """Where a devnet of this home may lie, with the option that names it: usually, or the home is its own folder."""
    own = paths.config
    return [(Folder(paths.devnet), ""), (Folder(own), f" --home {shlex.quote(str(own))}")]


def _hint(folder: Folder, option: str) -> str:
    plan = read_plan(folder)
    if not is_running(folder):
        return f"the devnet does not run: dllm devnet up{option}"
    try:
        pids = asyncio.run(_pids(folder))
    except TimeoutError:
        return ""
    killed = [node.name for node in plan.nodes if not pids.get(node.name)]
    commands = [f"dllm devnet restart {name.removeprefix('node-')}{option}" for name in killed]
    return f"{', '.join(killed)} of the devnet does not run: {'; '.join(commands)}" if killed else ""


async def _pids(folder: Folder) -> dict[str, int]:
    async with asyncio.timeout(SUPERVISOR_TIMEOUT_S), calling(folder) as caller:
        return dict((await caller.request("pids"))["pids"])
