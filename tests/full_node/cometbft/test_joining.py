"""`dllm-node join --state-sync`: a new node begins from a snapshot of four validators and comes to their root."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from full_node.home import NodeHome
from full_node.state.store import Store
from tests.full_node.cometbft.network import Network, Node, free_ports, until
from tests.full_node.processes import Sender, dllm_node

RECIPIENT = Sender.numbered(77).address
EVERY = 3


def _join(network: Network, trust_height: int) -> Node:
    """A folder made by `dllm-node join`, as its operator would."""
    first, second = network.nodes[:2]
    header = first.rpc("commit", height=str(trust_height))["signed_header"]["commit"]["block_id"]["hash"]
    rpc_port, p2p_port = free_ports(2)
    node = Node("joined", network.folder / "joined", rpc_port, p2p_port)
    made = dllm_node(
        *("join", "--home", node.home, "--genesis", NodeHome(first.home).genesis),
        *(word for one in network.nodes for word in ("--peer", one.peer_address)),
        *("--state-sync", first.url, "--state-sync", second.url),
        *("--trust-height", str(trust_height), "--trust-hash", header),
    )
    assert made.returncode == 0, made.stderr
    network.nodes.append(node)
    return node


def test_a_node_that_joins_by_a_snapshot_reaches_the_root_of_the_others(
    tmp_path: Path, cometbft: Path
) -> None:
    with Network.start(tmp_path, validators=4, options=("--snapshot-every", str(EVERY))) as network:
        payer = network.sender(1)
        for amount in range(1, 5):
            network.transfer(payer, RECIPIENT, amount)
        until("a snapshot that two headers follow", lambda: _is_offered(network, payer))
        joined = _join(network, trust_height=2)
        joined.begin()
        joined.ready()
        until("the new node to be up to date", lambda: joined.height and not _sync(joined)["catching_up"])
        # It has no block from before the snapshot: it did not come here by executing them.
        assert int(_sync(joined)["earliest_block_height"]) > EVERY

        height = int(network.transfer(payer, RECIPIENT, 7)["height"])
        root = network.require_agreement(height)
        found = network.wait_for_tx(network.send(payer.transfer(RECIPIENT, 8), joined), joined)
        network.require_agreement(int(found["height"]))

        assert joined.stop() == 0
        store = Store(NodeHome(joined.home).database)
        assert store.root_at(height).hex().upper() == root
        store.close()
        joined.restart()
        network.require_agreement(int(network.transfer(payer, RECIPIENT, 9)["height"]))


def _is_offered(network: Network, payer: Sender) -> bool:
    """Whether all have the newest snapshot and CometBFT can check it, which takes the two headers above it."""
    height = network.nodes[0].height
    newest = height - height % EVERY
    if height % EVERY == 2 and all(newest in _snapshots(node) for node in network.nodes):
        return True
    network.transfer(payer, RECIPIENT, 1)
    return False


def _sync(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = node.rpc("status")["sync_info"]
    return found


def _snapshots(node: Node) -> list[int]:
    folder = NodeHome(node.home).snapshots
    return [int(one.name) for one in folder.iterdir() if one.name.isdecimal()] if folder.exists() else []
