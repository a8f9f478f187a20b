"""Records `abci.json`: what a real CometBFT asked of real nodes, and what they answered.

``python -m tests.vectors.record_abci`` starts four validators, lets them live through
`tests.full_node.cometbft.story`, lets a fifth node begin from a snapshot, and keeps the conversations of the first
validator and of the fifth node. Whoever changes what a block does records anew; the program `cometbft` is needed for
that, not for the tests that read the file.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from full_node.consensus.abci.requests import Echo, Flush, decode_request
from full_node.consensus.cometbft.binary import find_cometbft, require_our_line
from full_node.consensus.cometbft.config import StateSyncPlan
from full_node.consensus.cometbft.files import EngineFolder, forget_blocks
from full_node.home import NodeHome
from full_node.settings import NodeSettings
from tests.full_node.cometbft.network import Network, Node, until
from tests.full_node.cometbft.story import STAKER_ACCOUNT, tell
from tests.full_node.processes import Sender
from tests.vectors.recording_node import NAMED_BY

TARGET = Path(__file__).with_name("abci.json")
RECORDING = (sys.executable, "-c", "from tests.vectors.recording_node import run; run()")
EVERY_BLOCKS = 8
RECIPIENT = Sender.numbered(78).address


def main() -> None:
    """Runs the networks and writes the file."""
    with tempfile.TemporaryDirectory() as folder:
        document = record(Path(folder))
    TARGET.write_text(json.dumps(document, indent=1) + "\n")


def record(folder: Path) -> dict[str, Any]:
    """One run of everything."""
    options = ("--snapshot-every", str(EVERY_BLOCKS))
    with Network.start(folder, validators=4, accounts=[STAKER_ACCOUNT], options=options) as network:
        network.wait_for_height(1)
        first = network.nodes[0]
        # Recorded from its first question on: the node begins anew, from nothing.
        first.stop()
        forget(first)
        start_recording(first, folder / "first")
        tell(network)
        payer = network.sender(2)
        first.rpc("abci_query", path="/store", data=b"chain".hex(), prove=True)
        # A snapshot from after the evidence: without the blocks before, nobody could judge it.
        wanted = -(-first.height // EVERY_BLOCKS) * EVERY_BLOCKS
        while first.height < wanted + 3:
            network.transfer(payer, RECIPIENT, 3, first)
        until("the snapshot", (NodeHome(first.home).snapshots / str(wanted)).exists)
        root = first.rpc("commit", height="1")["signed_header"]["commit"]["block_id"]["hash"]
        plan = StateSyncPlan((first.url, network.nodes[1].url), 1, bytes.fromhex(root))
        taker = network.add_node("taker", settings=NodeSettings(state_sync=plan))
        start_recording(taker, folder / "taker")
        until("state sync", lambda: not taker.rpc("status")["sync_info"]["catching_up"])
        network.require_agreement(int(network.transfer(payer, RECIPIENT, 4, first)["height"]))
        for node in network.running():
            node.stop()
        return {
            "origin": f"cometbft {require_our_line(find_cometbft())}, python -m tests.vectors.record_abci",
            "dllm_version": version("dllm"),
            "snapshot_every": EVERY_BLOCKS,
            "genesis": network.genesis.encode().hex(),
            "validator": conversation(folder / "first"),
            "taker": conversation(folder / "taker"),
        }


def forget(node: Node) -> None:
    """Removes what a node knows of the chain, not what it has signed."""
    place = NodeHome(node.home)
    forget_blocks(EngineFolder(place.cometbft))
    for file in place.folder.glob("data.db*"):
        file.unlink()


def start_recording(node: Node, record_file: Path) -> None:
    """Starts a node that writes its conversation down."""
    node.program = RECORDING
    os.environ[NAMED_BY] = str(record_file)
    try:
        node.restart()
    finally:
        del os.environ[NAMED_BY]


def conversation(record_file: Path) -> list[dict[str, str]]:
    """What was asked and answered, without small talk."""
    pairs = [line.split() for line in record_file.read_text().splitlines()]
    found = []
    for asked, answered in pairs:
        request = decode_request(bytes.fromhex(asked))
        if not isinstance(request, Echo | Flush):
            found.append({"kind": type(request).__name__, "request": asked, "response": answered})
    return found


if __name__ == "__main__":
    main()
