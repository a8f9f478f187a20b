"""The command line of each part of a devnet: the same programs that anybody runs on a real network."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from dllm_chat.contributing import worker_command
from dllm_chat.devnet.plan import COMETBFT, LOOPBACK, Folder, NodePlan, Plan
from dllm_chat.devnet.slices import ask_of, slots_of
from dllm_chat.packages import MANIFEST_FILE
from dllm_protocol.bundle import NetworkBundle, SignedBundle
from dllm_protocol.model_manifest import Manifest

WORKER_BUNDLE = "bundle"
"""In a worker's home: the network as this worker is told of it."""
FAUCET_DLLM = 100
"""What the devnet's faucet gives at a time."""
FAUCET_WINDOW_S = 3600
FAUCET_PER_ADDRESS = 5
FAUCET_PER_CLIENT = 200
"""Everybody on a devnet is the same client: 127.0.0.1."""
RELAY_PER_REMOTE = 256
"""The same for a relay: workers and everybody who asks them."""


def program(*words: str) -> list[str]:
    """`dllm-node` of this very installation."""
    return [sys.executable, "-m", "full_node", *words]


def node_command(folder: Folder, plan: Plan, node: NodePlan) -> list[str]:
    """Runs one node."""
    words = ["start", "--home", str(folder.node(node.name))]
    words += ["--rpc-listen", f"{LOOPBACK}:{node.rpc_port}", "--moniker", node.name]
    if plan.engine == COMETBFT:
        words += ["--p2p-listen", f"{LOOPBACK}:{node.p2p_port}"]
    return program(*words, "--lifeline")


def devnet_worker_command(folder: Folder, plan: Plan, name: str) -> list[str]:
    """Runs one worker."""
    home = folder.worker(name)
    if not plan.split:
        model = Path(plan.model) if plan.model else None
        return worker_command(home, home / WORKER_BUNDLE, model=model, relay=plan.relay_url, lifeline=True)
    command = worker_command(
        home, home / WORKER_BUNDLE, package=folder.package, relay=plan.relay_url, lifeline=True
    )
    manifest = Manifest.decode((folder.package / MANIFEST_FILE).read_bytes())
    for slot in slots_of(plan.slots, name):
        first, end = plan.layers_of(slot)
        ask = ask_of(manifest, end - first, slot.copy)
        prices = (ask.prompt_udllm, ask.kept_udllm, ask.drafted_udllm, ask.replayed_udllm)
        command += [f"--layers={first}:{end}", f"--prices={','.join(map(str, prices))}"]
    return command


def bundle_for_worker(plan: Plan, name: str, bundle: NetworkBundle) -> bytes:
    """What a worker is told of the network: each asks another node first, and compares with all others."""
    own = plan.workers.index(name) % len(plan.nodes)
    first, *others = [node.websocket for node in (*plan.nodes[own:], *plan.nodes[:own])]
    return SignedBundle(replace(bundle, sources=(first,), witnesses=tuple(others)), b"", b"").encode()


def relay_command(folder: Folder, plan: Plan) -> list[str]:
    """Runs the relay."""
    words = ["relay", "--home", str(folder.relay), "--listen", f"{LOOPBACK}:{plan.relay_port}"]
    return program(*words, "--per-remote", str(RELAY_PER_REMOTE), "--lifeline")


def faucet_command(folder: Folder, plan: Plan) -> list[str]:
    """Runs the faucet."""
    words = ["faucet", "--home", str(folder.faucet), "--bundle", str(folder.bundle)]
    words += ["--listen", f"{LOOPBACK}:{plan.faucet_port}", "--amount", str(FAUCET_DLLM)]
    words += ["--window-s", str(FAUCET_WINDOW_S), "--per-address", str(FAUCET_PER_ADDRESS)]
    words += ["--per-client", str(FAUCET_PER_CLIENT)]
    for node in plan.nodes:
        words += ["--node", node.websocket]
    return program(*words, "--lifeline")


def bundle_command(folder: Folder, plan: Plan) -> list[str]:
    """Describes the running devnet, signed by the first node's publisher."""
    first, *others = plan.nodes
    words = ["bundle", "--home", str(folder.node(first.name)), "--json", "--source", first.websocket]
    for node in others:
        words += ["--witness", node.websocket]
    if plan.engine == COMETBFT:
        for node in plan.nodes:
            words += ["--seed", node.peer_address]
    return program(*words, "--faucet", plan.faucet_url)
